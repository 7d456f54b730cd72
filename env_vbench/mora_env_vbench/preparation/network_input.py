"""Frames (F, H, W, 3) of bytes as the inputs of DINO, CLIP and ViCLIP.

The published metrics resize in four ways. Scores differ between them, so each metric names its own.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from mora_env_vbench.preparation.frame_size import centre, centre_offset, resized, to_shorter_side
from mora_env_vbench.preparation.normalisation import CLIP, IMAGENET

SIDE = 224


def dino_float(frames: Tensor, side: int = SIDE) -> Tensor:
    """The whole frame with its shorter side `side`, bilinear without antialiasing."""
    pictures = channels_first(frames).float()
    size = to_shorter_side(pictures.shape[-2], pictures.shape[-1], side)
    return IMAGENET.normalised(resized(pictures, size, "bilinear"))


def clip_float(frames: Tensor, side: int = SIDE) -> Tensor:
    """The middle square, bicubic without antialiasing, on floats: values outside of 0..255 stay."""
    return CLIP.normalised(_middle(frames, side))


def clip_uint8(frames: Tensor, side: int = SIDE) -> Tensor:
    """As `clip_float`, on bytes: values are clamped to 0..255 and rounded."""
    return CLIP.normalised(_middle(frames, side).clamp(0, 255).round())


def clip_pil(frames: Tensor, side: int = SIDE) -> Tensor:
    """The middle square as Pillow resizes it: bicubic with antialiasing, on bytes."""
    height, width = to_shorter_side(frames.shape[1], frames.shape[2], side)
    top, left = centre_offset(height, side), centre_offset(width, side)
    cut = torch.empty((len(frames), side, side, 3), dtype=torch.uint8)
    for index, frame in enumerate(frames.cpu().numpy()):
        picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
        square = picture.crop((left, top, left + side, top + side))
        cut[index] = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(side, side, 3)
    return CLIP.normalised(channels_first(cut.to(frames.device)))


def channels_first(frames: Tensor) -> Tensor:
    """Frames (F, H, W, 3) as (F, 3, H, W), dense in memory."""
    return frames.permute(0, 3, 1, 2).contiguous()


def _middle(frames: Tensor, side: int) -> Tensor:
    pictures = channels_first(frames).float()
    size = to_shorter_side(pictures.shape[-2], pictures.shape[-1], side)
    return centre(resized(pictures, size, "bicubic"), side)
