"""Temporal flickering: how little neighbouring frames differ."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 255.0  # value of a byte


def mean_differences(first: Tensor, second: Tensor) -> Tensor:
    """Float64 (n,): the mean absolute difference of each pair of frames; both are bytes (n, H, W, 3)."""
    return torch.stack(
        [(one.short() - other.short()).abs().sum(dtype=torch.int64).double() / one.numel()
         for one, other in zip(first, second, strict=True)]
    )  # fmt: skip


def steadiness(differences: Tensor) -> float:
    """The score of a video whose neighbouring frames have these differences, 0..1."""
    return (LARGEST - float(differences.mean())) / LARGEST
