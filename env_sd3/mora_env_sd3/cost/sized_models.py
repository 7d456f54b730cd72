"""Models of the sizes that options name, without their weights: for plans, and for checks of a machine."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from mora_environment.model_folder import config_in

from mora_env_sd3.cost import published
from mora_env_sd3.options import Sd3Options
from mora_env_sd3.renderer import FeatureMap, Renderer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def sized_renderer(options: Sd3Options, device: torch.device) -> Renderer:
    """Make the models of a renderer on a device, set as the agent sets them; weights are fresh, or none on meta."""
    dtype, folder = DTYPES[options.dtype], Path(options.model)
    own = Path(options.transformer or folder / "transformer")
    with device:
        transformer = SD3Transformer2DModel.from_config(config_in(own, published.TRANSFORMER)).to(dtype)
        vae = AutoencoderKL.from_config(config_in(folder / "vae", published.VAE)).to(dtype)
        if options.position == "feature":
            transformer.mora_feature_map = FeatureMap(transformer.config.joint_attention_dim, device, dtype)
    if options.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
        transformer.train()
    scheduler = config_in(folder / "scheduler", published.SCHEDULER, name="scheduler_config")
    return Renderer(transformer, vae.requires_grad_(False), FlowMatchEulerDiscreteScheduler.from_config(scheduler))
