"""Models of the sizes that options name, without their weights: for plans, and for checks of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mora_environment.model_folder import config_in

from mora_env_sd3.pictures.picture_agent import DTYPES
from mora_env_sd3.sdxl import published
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.sdxl.renderer import Denoiser, XlRenderer
from mora_env_sd3.unet.loading import scheduler_of
from mora_env_sd3.unet.sized_parts import sized_autoencoder, sized_unet


def sized_renderer(options: SdxlOptions, device: torch.device) -> XlRenderer:
    """Make the models of a renderer on a device, set as the agent sets them; weights are fresh, or none on meta."""
    folder = Path(options.model)
    unet = config_in(Path(options.unet or folder / "unet"), published.UNET)
    refiner = None
    if options.refiner is not None:
        config = config_in(Path(options.refiner) / "unet", published.REFINER_UNET)
        refiner = _denoiser(options, device, options.refiner, config, takes_scores=True)
        refiner.unet.requires_grad_(False)
    return XlRenderer(
        _denoiser(options, device, options.model, unet, takes_scores=False),
        sized_autoencoder(config_in(folder / "vae", published.VAE), DTYPES[options.dtype], device),
        refiner,
        high_noise_share=options.high_noise_share,
        gamma=options.snr_gamma,
    )


def _denoiser(
    options: SdxlOptions, device: torch.device, model: str, config: dict[str, Any], *, takes_scores: bool
) -> Denoiser:
    unet = sized_unet(config, DTYPES[options.dtype], device, recomputes=options.gradient_checkpointing)
    scheduler = config_in(Path(model) / "scheduler", published.SCHEDULER, name="scheduler_config")
    return Denoiser(unet, scheduler_of(scheduler, model), takes_scores=takes_scores)
