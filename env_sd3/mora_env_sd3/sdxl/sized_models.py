"""Models of the sizes that options name, without their weights: for plans, and for checks of a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from mora_env_sd3.pictures.picture_agent import DTYPES
from mora_env_sd3.sdxl import published
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.sdxl.renderer import Denoiser, XlRenderer
from mora_env_sd3.unet.autoencoder import Autoencoder
from mora_env_sd3.unet.loading import autoencoder_dtype, scheduler_of, set_up


def sized_renderer(options: SdxlOptions, device: torch.device) -> XlRenderer:
    """Make the models of a renderer on a device, set as the agent sets them; weights are fresh, or none on meta."""
    dtype, folder = DTYPES[options.dtype], Path(options.model)
    own = Path(options.unet or folder / "unet")
    vae = _config(folder / "vae", published.VAE)
    with device:
        autoencoder = AutoencoderKL.from_config(vae).to(autoencoder_dtype(vae, dtype)).requires_grad_(False)
    refiner = None
    if options.refiner is not None:
        unet = Path(options.refiner) / "unet"
        refiner = _denoiser(options, device, options.refiner, _config(unet, published.REFINER_UNET), takes_scores=True)
        refiner.unet.requires_grad_(False)
    return XlRenderer(
        _denoiser(options, device, options.model, _config(own, published.UNET), takes_scores=False),
        Autoencoder(autoencoder),
        refiner,
        high_noise_share=options.high_noise_share,
        gamma=options.snr_gamma,
    )


def _denoiser(
    options: SdxlOptions, device: torch.device, model: str, config: dict[str, Any], *, takes_scores: bool
) -> Denoiser:
    with device:
        unet = UNet2DConditionModel.from_config(config).to(DTYPES[options.dtype])
    scheduler = _config(Path(model) / "scheduler", published.SCHEDULER, name="scheduler_config")
    set_up(unet, recomputes=options.gradient_checkpointing)
    return Denoiser(unet, scheduler_of(scheduler, model), takes_scores=takes_scores)


def _config(folder: Path, otherwise: dict[str, Any], *, name: str = "config") -> dict[str, Any]:
    """A configuration of diffusers in a folder, or the published one where the folder is a name on the Hub."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else otherwise
