"""Sizes of frames: the shorter side brought to a length, and the middle cut out."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def to_shorter_side(height: int, width: int, side: int) -> tuple[int, int]:
    """The size with the shorter side `side`; the longer one is rounded down."""
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side


def centre_offset(length: int, side: int) -> int:
    """Where a piece of length `side` begins that is cut from the middle; halves are rounded to even."""
    return round((length - side) / 2.0)


def centre(frames: Tensor, side: int) -> Tensor:
    """The middle (..., side, side) of frames (..., H, W) that are at least as large."""
    top, left = (centre_offset(length, side) for length in frames.shape[-2:])
    return frames[..., top : top + side, left : left + side]


def resized(frames: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Frames (F, 3, H, W) resized without antialiasing; values of `bicubic` can leave the range of the input."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    return functional.interpolate(frames, size=size, mode=mode, align_corners=False)
