"""Models of the sizes that configurations name, without their weights: for plans, and for checks of a machine."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from mora_env_sd3.unet.autoencoder import Autoencoder
from mora_env_sd3.unet.loading import autoencoder_dtype, set_up


def sized_unet(
    config: dict[str, Any], dtype: torch.dtype, device: torch.device, *, recomputes: bool
) -> UNet2DConditionModel:
    """A UNet set as an agent uses it; its weights are fresh, or none on the meta device."""
    with device:
        unet = UNet2DConditionModel.from_config(config).to(dtype)
    return set_up(unet, recomputes=recomputes)


def sized_autoencoder(config: dict[str, Any], dtype: torch.dtype, device: torch.device) -> Autoencoder:
    """An autoencoder in the dtype in which an agent loads it."""
    with device:
        vae = AutoencoderKL.from_config(config).to(autoencoder_dtype(config, dtype))
    return Autoencoder(vae.requires_grad_(False))
