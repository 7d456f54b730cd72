"""Pre-training lowers the loss, and the result loads like the published model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from mora_env_sd3 import tiny_shapes
from mora_env_sd3.agent import Sd3Agent
from mora_env_sd3.options import Sd3Options
from safetensors.torch import save_file

CAPTIONS = ["a red circle moves slowly left", "a blue square moves quickly up"] * 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    pixels = torch.full((len(CAPTIONS), 5, 32, 32, 3), 24, dtype=torch.uint8)
    pixels[:, :, 8:20, 10:22] = torch.tensor([220, 50, 40], dtype=torch.uint8)
    save_file({"pixels": pixels}, folder / "clips.safetensors")
    (folder / "captions.json").write_text(json.dumps(CAPTIONS), encoding="utf-8")
    return folder


def test_a_few_steps_lower_the_loss_and_the_agent_loads_what_was_written(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: dict[str, float] = {}
    train = tiny_shapes.train_tiny

    def short(parameters, phase, num_samples, loss_of, *, seed):  # type: ignore[no-untyped-def]
        parameters = list(parameters)
        with torch.no_grad():
            first = float(loss_of(torch.arange(num_samples), torch.Generator().manual_seed(9)))
        last = train(parameters, replace(phase, num_steps=40, batch_size=8), num_samples, loss_of, seed=seed)
        losses[phase.name] = last / first
        return last

    monkeypatch.setattr(tiny_shapes, "train_tiny", short)
    folder = tmp_path / "model"
    tiny_shapes.make_shapes(folder, data)
    assert losses["image autoencoder"] < 0.3, losses
    assert losses["image transformer"] < 0.8, losses
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    pixels = torch.full((1, 3, 32, 32), 24 / 127.5 - 1.0)
    scaled = (vae.encode(pixels).latent_dist.mean - vae.config.shift_factor) * vae.config.scaling_factor
    assert scaled.isfinite().all()
    options = Sd3Options(model=str(folder), height=32, width=32, num_inference_steps=2, max_sequence_length=32)
    made = Sd3Agent(options, torch.device("cpu")).text_to_image(CAPTIONS[:1], [1])["outputs"]
    assert made.shape == (1, 32, 32, 3)
    assert int(made.float().std()) > 0


def test_the_same_seed_gives_the_same_weights() -> None:
    phase = tiny_shapes.Phase("twice", num_steps=5, batch_size=4, learning_rate=1e-2)
    inputs = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))

    def trained() -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(3))
        loss_of = lambda indices, generator: ((inputs[indices] * weight).sum(dim=1) ** 2).mean()  # noqa: E731
        tiny_shapes.train_tiny([weight], phase, 16, loss_of, seed=3)
        return weight.detach()

    assert torch.equal(trained(), trained())
    assert not torch.equal(trained(), torch.ones(3))
