"""Turns and mirrors frames as a display matrix says."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = tuple[int, int, int, int]  # x' = a x + c y; y' = b x + d y, given as (a, b, c, d)
UPRIGHT: Matrix = (1, 0, 0, 1)
_NBYTES = 36  # nine native 32-bit integers


def display_matrix(data: bytes) -> Matrix:
    """Return the quarter turn and mirroring that is nearest to a stream's display matrix; a broken one is upright."""
    if len(data) != _NBYTES:
        return UPRIGHT
    values = [int.from_bytes(data[at : at + 4], sys.byteorder, signed=True) for at in range(0, _NBYTES, 4)]
    a, b, c, d = values[0], values[1], values[3], values[4]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (_sign(a), 0, 0, _sign(d))
    return (0, _sign(b), _sign(c), 0)


def _sign(value: int) -> int:
    return -1 if value < 0 else 1


def oriented(pixels: npt.NDArray[np.uint8], matrix: Matrix) -> npt.NDArray[np.uint8]:
    """Return a view of pixels (H, W, channels) as they are shown."""
    a, b, c, d = matrix
    if a or d:
        return pixels[:: d or 1, :: a or 1]
    return pixels.transpose(1, 0, 2)[::b, ::c]


def oriented_size(size: Sequence[int], matrix: Matrix) -> tuple[int, int]:
    """Return the (height, width) at which a frame of that size is shown."""
    height, width = size
    return (height, width) if matrix[0] else (width, height)
