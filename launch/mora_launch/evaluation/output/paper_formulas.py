"""The paper's own metrics of videos and texts (arXiv 2403.13248 v3, A.2), from feature vectors. They need no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mora_runtime.errors import BadArgument


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """TCON of the features of an input and an output video, VideoTI of those of two texts.

    Raises:
        BadArgument: the vectors have other lengths, or one is 0.
    """
    if len(first) != len(second):
        raise BadArgument(f"features: expected two of one length, got {len(first)} and {len(second)}")
    length = math.sqrt(math.fsum(x * x for x in first) * math.fsum(y * y for y in second))
    if length == 0.0:
        raise BadArgument("features: expected vectors with a direction, got one of zeros")
    return math.fsum(x * y for x, y in zip(first, second, strict=True)) / length


def tmean(before: Sequence[float], between: Sequence[float], after: Sequence[float]) -> float:
    """Tmean of a connection: the mean of TCON to the video before it and to the video after it."""
    return (cosine(before, between) + cosine(between, after)) / 2.0
