"""Which frames of a video a network sees."""

from __future__ import annotations

from itertools import pairwise

import numpy

_DYNAMIC_FPS = 8  # frames a second at which dynamic degree looks at a video


def middle_frames(num_frames: int, number: int = 8) -> list[int]:
    """The middle frame of each of `number` equal intervals; a shorter video repeats its last frame."""
    if num_frames < number:
        return [min(index, num_frames - 1) for index in range(number)]
    edges = numpy.linspace(0, num_frames, number + 1).astype(int).tolist()
    return [(start + end - 1) // 2 for start, end in pairwise(edges)]


def dynamic_stride(fps: float) -> int:
    """Dynamic degree takes every frame that this number divides: about 8 frames a second, in whole steps."""
    return max(1, round(fps / _DYNAMIC_FPS))
