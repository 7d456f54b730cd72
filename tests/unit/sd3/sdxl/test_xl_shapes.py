"""Pre-training on shapes lowers the loss, and the agent loads what it wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_env_sd3 import tiny_shapes as pictures
from mora_env_sd3.sdxl import tiny_shapes
from mora_env_sd3.sdxl.agent import SdxlAgent
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.unet import tiny_shapes as unets
from safetensors.torch import save_file

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CAPTIONS = ["a red circle moves slowly left", "a blue square moves quickly up"] * 4


def test_a_few_steps_lower_the_loss_and_the_agent_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    pixels = torch.full((len(CAPTIONS), 2, 32, 32, 3), 24, dtype=torch.uint8)
    pixels[:, :, 8:20, 10:22] = torch.tensor([220, 50, 40], dtype=torch.uint8)
    save_file({"pixels": pixels}, data / "clips.safetensors")
    (data / "captions.json").write_text(json.dumps(CAPTIONS), encoding="utf-8")
    ratios: dict[str, float] = {}

    def short(train: Any) -> Any:
        def few(parameters: Any, phase: Any, num_samples: int, loss_of: Any, *, seed: int) -> float:
            parameters = list(parameters)
            with torch.no_grad():
                first = float(loss_of(torch.arange(num_samples), torch.Generator().manual_seed(9)))
            last: float = train(
                parameters,
                replace(phase, num_steps=30 if "auto" in phase.name else 100, batch_size=8),
                num_samples,
                loss_of,
                seed=seed,
            )
            ratios[phase.name] = last / first
            return last

        return few

    for module in (pictures, unets):
        monkeypatch.setattr(module, "train_tiny", short(module.train_tiny))
    folder = tmp_path / "model"
    tiny_shapes.make_shapes(folder, data)
    assert ratios["image autoencoder"] < 0.6, ratios
    assert ratios["sdxl unet"] < 0.8, ratios
    options = SdxlOptions(model=str(folder), height=32, width=32, num_inference_steps=2)
    made = SdxlAgent(options, torch.device("cpu")).text_to_image(CAPTIONS[:1], [1])["outputs"]
    assert made.shape == (1, 32, 32, 3)
    assert made.float().std() > 1
