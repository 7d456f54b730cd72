"""Tiny Stable Diffusion XL: every part of the published layout, with a few hundred thousand parameters.

The weights are random from a seed; the real code loads and trains it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from mora_env_sd3.pictures.tiny_parts import tiny_clip_config, tiny_clip_tokenizer, tiny_vae
from mora_env_sd3.sdxl import published

_WIDTHS = (24, 40)  # of the rows of both text encoders
_WORDS = ("a", "red", "green", "blue", "circle", "square", "moves", "left", "right", "up", "down", "mod")
_LOUDNESS = 50.0  # factor of the token embeddings
_TIME_WIDTH = 8  # of each number about size and crop


def tiny_sdxl(folder: Path) -> dict[str, Any]:
    """Write a tiny SDXL; returns options of kind `sdxl` that make pictures of 32x32 pixels with it."""
    make_tiny(folder)
    return {
        "model": str(folder),
        "height": 32,
        "width": 32,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "gradient_steps": "all",
    }


def make_tiny(
    folder: Path,
    *,
    seed: int = 0,
    words: Iterable[str] = _WORDS,
    num_channels: int = 4,
    timestep_spacing: str = published.SCHEDULER["timestep_spacing"],
    **unet: Any,
) -> None:
    """Write a tiny SDXL in diffusers' layout: unet/, vae/, scheduler/, two text encoders and tokenizers.

    Args:
        words: that are a token each.
        num_channels: of the latents.
        timestep_spacing: of the scheduler.
        unet: values that replace those of its configuration here.
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_clip_tokenizer(folder / "tokenizer", words)
    first, second = (tiny_clip_config(len(tokenizer), width=width) for width in _WIDTHS)
    pipeline = StableDiffusionXLPipeline(
        unet=UNet2DConditionModel(**(_unet_config(sum(_WIDTHS), num_channels, num_sizes=6) | unet)),
        scheduler=EulerDiscreteScheduler.from_config({**published.SCHEDULER, "timestep_spacing": timestep_spacing}),
        vae=tiny_vae(latent_channels=num_channels, scaling_factor=published.VAE["scaling_factor"]),
        text_encoder=_loud(CLIPTextModel(first)),
        tokenizer=tokenizer,
        text_encoder_2=_loud(CLIPTextModelWithProjection(second)),
        tokenizer_2=tokenizer,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)


def make_tiny_refiner(folder: Path, base: Path, *, seed: int = 1) -> None:
    """Write a tiny refiner for the tiny SDXL in `base`, with the parts of that model that it shares."""
    model = StableDiffusionXLPipeline.from_pretrained(base)
    torch.manual_seed(seed)
    pipeline = StableDiffusionXLImg2ImgPipeline(
        unet=UNet2DConditionModel(**_unet_config(_WIDTHS[1], 4, num_sizes=5)),
        scheduler=model.scheduler,
        vae=model.vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=model.text_encoder_2,
        tokenizer_2=model.tokenizer_2,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)


@torch.no_grad()
def _loud(encoder: Any) -> Any:
    """An encoder whose rows before the last layer are about as large as those of a trained one.

    No norm comes after them, and with fresh embeddings they would be fifty times smaller.
    """
    table: torch.Tensor = encoder.get_input_embeddings().weight
    table *= _LOUDNESS
    return encoder


def _unet_config(text_width: int, num_channels: int, *, num_sizes: int) -> dict[str, Any]:
    return {
        "in_channels": num_channels,
        "out_channels": num_channels,
        "sample_size": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "cross_attention_dim": text_width,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _TIME_WIDTH,
        "projection_class_embeddings_input_dim": _WIDTHS[1] + num_sizes * _TIME_WIDTH,
    }
