"""Which frames are given, and the clip that shows them.

A mask is 1 at frames to generate and 0 at given ones. Frames to generate are grey (0 in [-1, 1]) in the masked clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mora_env_svd.errors import InputError
from mora_env_svd.pixels import unit_pixels
from mora_env_svd.seine.given_frames import given_counts, given_frames


def frame_mask(kind: str, num_frames: int) -> Tensor:
    """float32 (F,)."""
    return mask_of(given_frames(kind, num_frames), num_frames)


def latent_mask(kind: str, num_frames: int, h: int, w: int) -> Tensor:
    """float32 (1, 1, F, h, w), constant over each frame. A latent frame is a frame."""
    return over_pictures(frame_mask(kind, num_frames), h, w)


def mask_of(given: Sequence[int], num_frames: int) -> Tensor:
    """float32 (F,) of given frames by index."""
    mask = torch.ones(num_frames)
    mask[list(given)] = 0.0
    return mask


def over_pictures(mask: Tensor, h: int, w: int) -> Tensor:
    """(F,) -> (1, 1, F, h, w)."""
    return mask[None, None, :, None, None].expand(1, 1, -1, h, w)


def masked_clip(kind: str, images: Sequence[Tensor], num_frames: int, height: int, width: int) -> Tensor:
    """float32 (1, F, 3, H, W) in [-1, 1]: the images at the given frames, grey between them.

    Args:
        images: uint8 (H0, W0, 3) of one size: for `firstK` one, for `onelastK` the first and the last, for `all` none.

    Raises:
        InputError: the mask, the number of images or their dtype or shape does not fit.
    """
    start, end = given_counts(kind, num_frames)
    expected = 0 if kind.startswith("all") else 2 if kind.startswith("onelast") else 1
    if len(images) != expected:
        raise InputError(f"mask {kind}: expected {expected} images, got {len(images)}")
    placed = [images[0]] * start + [images[-1]] * end if images else []
    fitted = [resized(unit_pixels(image), height, width) for image in placed]
    clip = torch.zeros(1, num_frames, 3, height, width)
    for index, image in zip(given_frames(kind, num_frames), fitted, strict=True):
        clip[0, index] = image * 2.0 - 1.0
    return clip


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """(3, h, w) -> (3, height, width): bilinear, without antialiasing and without keeping the aspect ratio."""
    return F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False)[0]
