"""Consistency of a video's features: each frame compared with the one before it and with the first."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional


def pair_similarities(features: Tensor) -> Tensor:
    """Float64 (n - 1,): for each frame after the first, the mean of both cosines; a negative cosine counts as 0.

    Args:
        features: (n, d), one row a frame.
    """
    rows = functional.normalize(features.float(), dim=-1)
    before = functional.cosine_similarity(rows[:-1], rows[1:]).clamp(min=0.0)
    first = functional.cosine_similarity(rows[:1], rows[1:]).clamp(min=0.0)
    return (before.double() + first.double()) / 2.0


def consistency(features: Tensor) -> dict[str, Any]:
    """`score` of a video, the number of its pairs of frames as `weight`, and the values of these `pairs`.

    The overall value is the mean over the pairs of all videos, as one process of VBench computes it.
    """
    pairs = pair_similarities(features)
    return {"score": float(pairs.mean()), "weight": float(len(pairs)), "pairs": pairs.float()}
