"""A tiny Stable Video Diffusion model with random weights, in the layout of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mora_env_svd.svd import published
from mora_env_svd.svd.picture_encoder import SIDE

WIDTH = 32  # of the image embeddings
UNET: dict[str, Any] = published.UNET | {
    "sample_size": 4,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
    "block_out_channels": [32, 64],
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 48,
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "num_attention_heads": [2, 4],
}
VAE: dict[str, Any] = published.VAE | {
    "block_out_channels": [32, 32, 32, 64],  # as few as its group norms allow
    "layers_per_block": 1,
    "sample_size": 32,
}
IMAGE_ENCODER: dict[str, Any] = published.IMAGE_ENCODER | {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "patch_size": SIDE // 7,
    "projection_dim": WIDTH,
}


def tiny_image_to_video(folder: Path) -> dict[str, Any]:
    """Write it; returns options of kind `svd` that make clips of 5 frames at 32x32 pixels."""
    make_tiny(folder)
    return {
        "model": str(folder),
        "num_frames": 5,
        "height": 32,
        "width": 32,
        "decode_chunk_size": 3,
        "num_inference_steps": 2,
        "gradient_steps": "all",
    }


def make_tiny(folder: Path, seed: int = 0, *, unet: dict[str, Any] = UNET, vae: dict[str, Any] = VAE) -> None:
    """Write a checkpoint's folders: models, feature extractor and scheduler. The same seed writes the same weights."""
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNetSpatioTemporalConditionModel(**unet).save_pretrained(folder / "unet")
        AutoencoderKLTemporalDecoder(**vae).save_pretrained(folder / "vae")
        vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_ENCODER))
        vision.save_pretrained(folder / "image_encoder")
    CLIPImageProcessorPil().save_pretrained(folder / "feature_extractor")
    EulerDiscreteScheduler(**published.SCHEDULER).save_pretrained(folder / "scheduler")
