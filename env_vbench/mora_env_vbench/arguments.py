"""What every metric checks of a call before it computes, and of its score afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mora_runtime.errors import BadArgument
from torch import Tensor

LEAST_PADDED_SIDE = 128  # pixels: the coarsest of four resolutions then has two cells a side


def check_call(frames: Tensor, dimension: str, dimensions: Sequence[str], *, least: int = 1) -> None:
    """Check dimension and frames of `measure`.

    Args:
        dimensions: those of the agent.
        least: number of frames that the dimension needs.

    Raises:
        BadArgument: one of them does not fit.
    """
    if dimension not in dimensions:
        raise BadArgument(f"dimension: expected {' or '.join(dimensions)}, got `{dimension}`")
    check_frames(frames, least=least, what=dimension)


def check_frames(frames: Tensor, *, least: int = 1, what: str = "frames") -> None:
    """Check that frames are bytes (F, H, W, 3), at least `least` of them.

    Raises:
        BadArgument: they are not.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
        raise BadArgument(f"{what}: expected frames uint8 (F, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    if len(frames) < least:
        raise BadArgument(f"{what}: expected a video of at least {least} frames, got {len(frames)}")


def check_sides(frames: Tensor, multiple: int, what: str) -> None:
    """Check that frames are large enough for a network that correlates cells of 8x8 pixels at four resolutions.

    Args:
        multiple: frames are padded until their sides are multiples of it.

    Raises:
        BadArgument: a padded side is too short; the network would answer with NaN.
    """
    height, width = frames.shape[1:3]
    if min(-(-side // multiple) * multiple for side in (height, width)) < LEAST_PADDED_SIDE:
        raise BadArgument(
            f"{what}: expected frames of at least {LEAST_PADDED_SIDE} pixels a side, padded to multiples of "
            f"{multiple}; got {height}x{width}"
        )


def finite(dimension: str, result: dict[str, Any]) -> dict[str, Any]:
    """The result of `measure`, if every number in it is finite.

    Raises:
        BadArgument: one is NaN or infinite.
    """
    for name, value in result.items():
        is_finite = bool(value.isfinite().all()) if isinstance(value, Tensor) else math.isfinite(value)
        if not is_finite:
            raise BadArgument(f"{dimension}: expected finite numbers, but `{name}` of this video is not finite")
    return result
