"""Models of the sizes that configurations name, without their weights: for plans, and for checks of a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from mora_env_sd3.unet.autoencoder import Autoencoder
from mora_env_sd3.unet.loading import autoencoder_dtype, set_up


def config_in(folder: Path, otherwise: dict[str, Any], *, name: str = "config") -> dict[str, Any]:
    """A configuration of diffusers in a folder, or the published one where the folder is a name on the Hub."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else otherwise


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
