"""diffusers' pipeline loads the LoRA adapters that are exported, with the effect that they have here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from mora_env_svd.__main__ import KINDS
from mora_env_svd.wan.agent import wan_agent
from mora_env_svd.wan.options import WanOptions
from mora_environment.adapters.export_command import answer_export
from mora_training.adapters import adapter_tensors
from mora_training.trainable import select_trainable
from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from safetensors.torch import save_file


# diffusers adds adapters of zeros to Wan 2.1's attention to pictures, and peft tells that they are not in its config
@pytest.mark.filterwarnings("ignore::RuntimeWarning:peft")
def test_the_pipeline_of_diffusers_loads_exported_adapters(tiny_wan_folder: Path, tmp_path: Path) -> None:
    options = WanOptions(model=str(tiny_wan_folder / "i2v"), num_frames=5, height=32, width=32)
    model, source, target = wan_agent(options, torch.device("cpu")).module(), tmp_path / "own", tmp_path / "exported"
    source.mkdir()
    target.mkdir()
    trainable = TrainableSettings(scope="lora", lora_rank=2, lora_alpha=6.0)
    select_trainable(model, trainable)
    generator = torch.Generator().manual_seed(3)
    for name, value in model.named_parameters():
        if "lora_B" in name:  # zeros, with which adapters have no effect
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    own = {name: value.detach().contiguous() for name, value in adapter_tensors(model).items()}
    save_file(own, source / ADAPTER_FILE)
    (source / "config.json").write_text(json.dumps(trainable.model_dump()))
    request = {
        "kind": "wan", "options": options.model_dump(mode="json"), "source": "agents.video", "weights": None,
        "format": "diffusers-lora", "folder": str(source), "target": str(target),
    }  # fmt: skip
    assert "error" not in answer_export(KINDS, "mora_env_svd", request)
    pipeline = WanImageToVideoPipeline.from_pretrained(options.model)
    inputs = {
        "hidden_states": torch.randn(1, 36, 2, 4, 4, generator=generator),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 512, 32, generator=generator),
        "encoder_hidden_states_image": torch.randn(1, 5, 16, generator=generator),
    }
    with torch.no_grad():
        untrained = pipeline.transformer(**inputs).sample
        pipeline.load_lora_weights(str(target))
        found, expected = pipeline.transformer(**inputs).sample, model(**inputs).sample
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5)
    assert (untrained - expected).abs().max() > 1e-3
