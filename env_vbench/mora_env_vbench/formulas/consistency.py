"""Consistency of a video's features: each frame compared with the one before it and with the first."""

from __future__ import annotations

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
