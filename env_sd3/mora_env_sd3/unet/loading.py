"""The models of a UNet pipeline, from a folder in diffusers' layout or a Hub id."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.schedulers import KarrasDiffusionSchedulers
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from mora_runtime.errors import CheckpointError

from mora_env_sd3.unet.autoencoder import Autoencoder


def load_unet(
    source: str, subfolder: str | None, dtype: torch.dtype, device: torch.device, *, recomputes: bool
) -> UNet2DConditionModel:
    """The UNet of a folder.

    Args:
        recomputes: compute activations again in the backward pass instead of keeping them.
    """
    # only safetensors, because other formats can contain a program
    unet = UNet2DConditionModel.from_pretrained(source, subfolder=subfolder, dtype=dtype, use_safetensors=True)
    return set_up(unet.to(device), recomputes=recomputes)


def set_up(unet: UNet2DConditionModel, *, recomputes: bool) -> UNet2DConditionModel:
    """Set a UNet as an agent uses it."""
    if recomputes:
        unet.enable_gradient_checkpointing()
        unet.train()  # diffusers checkpoints only in train mode; there is no dropout
    return unet


def load_autoencoder(model: str, dtype: torch.dtype, device: torch.device) -> Autoencoder:
    """The autoencoder, in float32 where its configuration says that it overflows in narrower types."""
    config = AutoencoderKL.load_config(model, subfolder="vae")
    own = autoencoder_dtype(config, dtype)
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae", dtype=own, use_safetensors=True)
    return Autoencoder(vae.to(device).requires_grad_(False))


def autoencoder_dtype(config: dict[str, Any], dtype: torch.dtype) -> torch.dtype:
    """The dtype of an autoencoder with this config.json; `force_upcast` is on where the file does not name it."""
    return torch.float32 if config.get("force_upcast", True) else dtype


def load_scheduler(model: str) -> SchedulerMixin:
    """The scheduler that scheduler/scheduler_config.json names; see `scheduler_of`."""
    return scheduler_of(EulerDiscreteScheduler.load_config(model, subfolder="scheduler"), model)


def scheduler_of(config: dict[str, Any], model: str) -> SchedulerMixin:
    """The scheduler of a scheduler_config.json.

    Raises:
        CheckpointError: it names a class that the pipelines of diffusers do not take, or another prediction than noise.
    """
    name = str(config.get("_class_name"))
    known = [each.name for each in KarrasDiffusionSchedulers]
    if name not in known:
        raise CheckpointError(f"{model}/scheduler: expected one of {', '.join(known)} as _class_name, got {name}")
    scheduler = getattr(diffusers, name).from_config(config)
    if scheduler.config.prediction_type != "epsilon":
        raise CheckpointError(
            f"{model}/scheduler: expected prediction_type `epsilon`, got `{scheduler.config.prediction_type}`; "
            "this agent's loss compares noise"
        )
    return scheduler
