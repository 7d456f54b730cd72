"""The aesthetic score of frames: a linear head on the direction of their features."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def aesthetic_scores(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(n,), one score a frame, about 0..1 and not clamped.

    Args:
        features: (n, d).
        weight, bias: of the head, (1, d) and (1,); its answers are about 0..10.
    """
    return functional.linear(functional.normalize(features, dim=-1), weight, bias).squeeze(1) / 10.0
