"""Models of the sizes that options name, without their weights: for plans, and for checks of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mora_env_opensora import published
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint, OpenSoraT2V
from mora_env_opensora.models.checkpoint_files import read_json
from mora_env_opensora.models.pretrained import CONFIG_NAME
from mora_env_opensora.options import OpenSoraOptions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def sized_models(options: OpenSoraOptions, device: torch.device) -> tuple[OpenSoraInpaint, CausalVAEModel]:
    """Make transformer and autoencoder on a device, set as the agent sets them; weights are fresh, or none on meta."""
    with device:
        model = OpenSoraInpaint.from_config(_transformer(options)).to(DTYPES[options.dtype])
        vae = CausalVAEModel.from_config(config_of(options.vae, published.VAE)).to(DTYPES[options.vae_dtype])
    model.gradient_checkpointing = options.gradient_checkpointing
    vae.enable_gradient_checkpointing(options.gradient_checkpointing)
    vae.enable_tiling(options.vae_tiling)
    return model.eval(), vae.eval().requires_grad_(False)


def _transformer(options: OpenSoraOptions) -> dict[str, Any]:
    config = config_of(options.model, published.TRANSFORMER)
    if not options.from_text_to_video:
        return config
    with torch.device("meta"):
        base = OpenSoraT2V.from_config(config).config
    return base.to_dict() | {"vae_scale_factor_t": base.in_channels}


def config_of(folder: str, otherwise: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a folder, or the published one where the folder is a name on the Hub."""
    path = Path(folder)
    return read_json(path / CONFIG_NAME) if path.is_dir() else otherwise
