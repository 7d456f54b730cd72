"""Padding to sides that a network can divide, by repeating the border."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def padding_to(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """Left, right, top and bottom padding; of an odd number, right and bottom get the larger half."""
    across, down = (-width) % multiple, (-height) % multiple
    return across // 2, across - across // 2, down // 2, down - down // 2


def padded(pictures: Tensor, multiple: int) -> Tensor:
    """Pictures (N, C, H, W) with sides that are multiples of `multiple`."""
    return functional.pad(pictures, padding_to(pictures.shape[-2], pictures.shape[-1], multiple), mode="replicate")


def unpadded(values: Tensor, height: int, width: int, multiple: int) -> Tensor:
    """The part (..., height, width) of what was computed on padded pictures."""
    left, _, top, _ = padding_to(height, width, multiple)
    return values[..., top : top + height, left : left + width]
