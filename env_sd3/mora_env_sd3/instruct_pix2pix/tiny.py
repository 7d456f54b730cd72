"""Tiny InstructPix2Pix: every part of the published layout, with a few hundred thousand parameters.

The weights are random from a seed; the real code loads, trains and serves them on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from mora_env_sd3.instruct_pix2pix import published
from mora_env_sd3.pictures.tiny_parts import tiny_clip_config, tiny_clip_tokenizer, tiny_vae

_TEXT_WIDTH = 32


def tiny_edit(folder: Path) -> dict[str, Any]:
    """Write them; returns options of kind `instruct_pix2pix` that edit pictures of 32x32 pixels."""
    make_tiny(folder)
    return {
        "model": str(folder),
        "height": 32,
        "width": 32,
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "image_guidance_scale": 1.5,
        "gradient_steps": "all",
    }


def make_tiny(folder: Path, *, seed: int = 0, words: Iterable[str] = (), num_channels: int = 4) -> None:
    """Write the models in diffusers' layout: unet/, vae/, scheduler/, text_encoder/ and tokenizer/.

    Args:
        words: that have a token of their own.
        num_channels: of the latents.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_clip_tokenizer(folder / "tokenizer", words)
        config = tiny_clip_config(len(tokenizer), width=_TEXT_WIDTH, hidden_act="quick_gelu")
        StableDiffusionInstructPix2PixPipeline(
            vae=tiny_vae(latent_channels=num_channels, scaling_factor=published.VAE["scaling_factor"]),
            text_encoder=CLIPTextModel(config),
            tokenizer=tokenizer,
            unet=_unet(num_channels),
            scheduler=EulerAncestralDiscreteScheduler.from_config(published.SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)


def _unet(num_channels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=4,
        in_channels=2 * num_channels,
        out_channels=num_channels,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=2,
    )
