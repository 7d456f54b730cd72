"""Bytes of frames to numbers and back."""

from __future__ import annotations

import torch
from torch import Tensor

from mora_env_svd.errors import InputError


def unit_pixels(image: Tensor) -> Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W) in [0, 1]."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(f"image: expected uint8 (H, W, 3), got {image.dtype} {tuple(image.shape)}")
    # by a tensor: CUDA multiplies by the reciprocal of a Python number, which rounds in another way than the CPU
    pixels = image.permute(2, 0, 1).contiguous().float()
    return pixels / pixels.new_full((1,), 255.0)


def to_frames(decoded: Tensor) -> Tensor:
    """Decoded (F, 3, H, W), about [-1, 1] -> uint8 (F, H, W, 3), rounded. The input is not changed."""
    scaled = ((decoded * 0.5 + 0.5) * 255.0 + 0.5).clamp(0.0, 255.0)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
