"""Models of the sizes that options name, without their weights: for plans, and for checks of a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from mora_env_sd3.cost import published
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.renderer import FeatureMap, Renderer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def sized_renderer(options: Sd3Options, device: torch.device) -> Renderer:
    """Make the models of a renderer on a device, set as the agent sets them; weights are fresh, or none on meta."""
    dtype, folder = DTYPES[options.dtype], Path(options.model)
    own = Path(options.transformer or folder / "transformer")
    with device:
        transformer = SD3Transformer2DModel.from_config(_config(own, "config", published.TRANSFORMER)).to(dtype)
        vae = AutoencoderKL.from_config(_config(folder / "vae", "config", published.VAE)).to(dtype)
        if options.position == "feature":
            transformer.mora_feature_map = FeatureMap(transformer.config.joint_attention_dim, device, dtype)
    if options.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
        transformer.train()
    scheduler = _config(folder / "scheduler", "scheduler_config", published.SCHEDULER)
    return Renderer(transformer, vae.requires_grad_(False), FlowMatchEulerDiscreteScheduler.from_config(scheduler))


def _config(folder: Path, name: str, otherwise: dict[str, Any]) -> dict[str, Any]:
    """A configuration of diffusers in a folder, or the published one where the folder is a name on the Hub."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else otherwise
