"""Tiny models in the published layouts: SEINE's UNet, and Stable Diffusion 1.4's autoencoder, text encoder, tokenizer.

The weights are random from a seed; the real code loads, trains and serves them on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mora_env_svd.seine.models import SeineUNet
from mora_env_svd.seine.weights.weights_folder import save_unet
from mora_env_svd.tiny_text import save_tiny_text

TEXT_WIDTH = 32
UNET_CONFIG: dict[str, Any] = {
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": [1, 2],
}


def tiny_transition(folder: Path) -> dict[str, Any]:
    """Write them; returns options of kind `seine` that make clips of 6 frames at 32x32 pixels."""
    make_tiny(folder)
    return {
        "model": str(folder / "unet"),
        "base": str(folder / "base"),
        "num_frames": 6,
        "height": 32,
        "width": 32,
        "sample_method": "ddim",
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "training_masks": ["first1", "onelast1"],
        "gradient_steps": "all",
    }


def make_tiny(folder: Path, seed: int = 0, *, unet: dict[str, Any] = UNET_CONFIG) -> None:
    """Write `unet/` and `base/`. The same seed writes the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_unet(_unet(unet), folder / "unet")
        _vae().save_pretrained(folder / "base" / "vae")
        save_tiny_text(folder / "base", TEXT_WIDTH)


def _unet(config: dict[str, Any]) -> SeineUNet:
    model = SeineUNet.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("attn_temp.to_out.0.weight"):  # zeros, with which frames would not see each other
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return model


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    ).eval()
