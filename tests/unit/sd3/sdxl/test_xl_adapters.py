"""LoRA adapters of SDXL's UNet, exported for diffusers: its pipeline loads every one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from mora_env_sd3.__main__ import KINDS
from mora_env_sd3.sdxl.agent import SdxlAgent
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_environment.adapters.export_command import answer_export
from mora_training.adapters import adapter_tensors
from mora_training.trainable import select_trainable
from mora_training.training_settings import ADAPTER_FILE, TrainableSettings
from safetensors.torch import save_file

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
TRAINABLE = TrainableSettings(scope="lora", lora_rank=4, lora_alpha=20.0)
TEXT_WIDTH, POOLED_WIDTH = 64, 40  # of the tiny model


def noise(unet: torch.nn.Module) -> torch.Tensor:
    """The UNet's output for fixed inputs."""
    draw = torch.Generator().manual_seed(3)
    sizes = torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]] * 2)
    with torch.no_grad():
        made: torch.Tensor = unet(
            torch.randn(2, 4, 4, 4, generator=draw),
            torch.tensor([300.0, 700.0]),
            encoder_hidden_states=torch.randn(2, 9, TEXT_WIDTH, generator=draw),
            added_cond_kwargs={"text_embeds": torch.randn(2, POOLED_WIDTH, generator=draw), "time_ids": sizes},
            return_dict=False,
        )[0]
    return made


def test_diffusers_loads_every_exported_adapter_with_alpha(xl_options: dict[str, Any], tmp_path: Path) -> None:
    unet = SdxlAgent(SdxlOptions(**xl_options), torch.device("cpu")).module()
    untrained = noise(unet)
    select_trainable(unet, TRAINABLE)
    adapters = adapter_tensors(unet)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in adapters.items():
            if "lora_B" in name:
                tensor += 0.05 * torch.randn(tensor.shape, generator=draw)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    save_file({name: tensor.detach().contiguous() for name, tensor in adapters.items()}, source / ADAPTER_FILE)
    (source / "config.json").write_text(json.dumps(TRAINABLE.model_dump()))
    answer = answer_export(KINDS, "mora_env_sd3", {
        "kind": "sdxl", "options": xl_options, "source": "agents.image", "weights": None,
        "format": "diffusers-lora", "folder": str(source), "target": str(target),
    })  # fmt: skip
    assert "error" not in answer, answer
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl_options["model"], add_watermarker=False)
    pipeline.load_lora_weights(str(target))
    (name,) = pipeline.unet.peft_config
    assert pipeline.unet.peft_config[name].lora_alpha == 20
    assert len([key for key, _ in pipeline.unet.named_parameters() if f".{name}." in key]) == len(adapters)
    expected = noise(unet)
    assert torch.allclose(noise(pipeline.unet), expected, atol=1e-5, rtol=0)
    assert (untrained - expected).abs().max() > 1e-3, "the adapters change the model by more than the tolerance"
