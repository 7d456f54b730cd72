"""The models of a checkpoint, loaded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from mora_env_svd.clip_size import LATENT_CHANNELS, PIXELS_PER_CELL
from mora_env_svd.errors import ConfigError
from mora_env_svd.frame_coder import LATENT_SCALE
from mora_env_svd.svd.conditioning import TemporalFrameCoder
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.svd.picture_encoder import PictureEncoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SvdModels:
    """What an agent computes with."""

    unet: Any  # UNetSpatioTemporalConditionModel
    coder: TemporalFrameCoder
    encoder: PictureEncoder
    scheduler: Any  # EulerDiscreteScheduler

    @classmethod
    def load(cls, options: SvdOptions, device: torch.device) -> SvdModels:
        """Load them from a folder or the Hub's cache.

        Raises:
            ConfigError: a config has a value that this code does not support.
        """
        from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
        from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

        dtype = DTYPES[options.dtype]
        source, subfolder = (options.unet, None) if options.unet else (options.model, "unet")
        # only safetensors, because other formats can contain a program
        unet = UNetSpatioTemporalConditionModel.from_pretrained(
            source, subfolder=subfolder, dtype=dtype, use_safetensors=True
        )
        vae = AutoencoderKLTemporalDecoder.from_pretrained(
            options.model, subfolder="vae", dtype=DTYPES[options.vae_dtype], use_safetensors=True
        )
        with torch.random.fork_rng(devices=[]):  # transformers draws initial weights before it reads the stored ones
            vision = CLIPVisionModelWithProjection.from_pretrained(
                options.model, subfolder="image_encoder", dtype=dtype, use_safetensors=True
            )
        extractor = CLIPImageProcessorPil.from_pretrained(options.model, subfolder="feature_extractor")
        scheduler = EulerDiscreteScheduler.from_pretrained(options.model, subfolder="scheduler")
        check_configs(unet.config, vae.config, vision.config, scheduler.config)
        unet, vae, vision = (model.to(device).eval() for model in (unet, vae, vision))
        return cls.of(options, unet, vae, vision, scheduler, extractor.image_mean, extractor.image_std)

    @classmethod
    def of(
        cls,
        options: SvdOptions,
        unet: Any,
        vae: Any,
        vision: Any,
        scheduler: Any,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> SvdModels:
        """Set models as the options say; only the UNet trains."""
        recomputes = options.gradient_checkpointing
        if recomputes:
            unet.enable_gradient_checkpointing()
            _recompute_attention(unet)
        vae.requires_grad_(False)
        vision.requires_grad_(False)
        coder = TemporalFrameCoder(vae, options.decode_chunk_size, recomputes=recomputes)
        return cls(unet, coder, PictureEncoder(vision, mean, std, recomputes=recomputes), scheduler)


def _recompute_attention(unet: Any) -> None:
    """Let the backward repeat each attention module as a whole: diffusers keeps the graph of attention over frames."""
    from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel

    for module in unet.modules():
        if isinstance(module, TransformerSpatioTemporalModel):
            module.gradient_checkpointing = False
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def check_configs(unet: Any, vae: Any, vision: Any, scheduler: Any) -> None:
    """Raises: ConfigError: the models do not fit each other, or need what this code does not do."""
    expected = {
        "unet: in_channels": (unet.in_channels, 2 * LATENT_CHANNELS),
        "unet: cross_attention_dim": (unet.cross_attention_dim, vision.projection_dim),
        "vae: scaling_factor": (vae.scaling_factor, LATENT_SCALE),
        "vae: pixels per cell": (2 ** (len(vae.block_out_channels) - 1), PIXELS_PER_CELL),
        "vae: latent_channels": (vae.latent_channels, LATENT_CHANNELS),
        "scheduler: prediction_type": (scheduler.prediction_type, "v_prediction"),
        "scheduler: timestep_type": (scheduler.timestep_type, "continuous"),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise ConfigError(f"{name}: expected {wanted}, got {found}; is this a Stable Video Diffusion checkpoint?")
