"""Motion smoothness: how far frames are from those that a network makes from their neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from mora_env_vbench.formulas.flickering import LARGEST, mean_differences


def to_bytes(pictures: Tensor) -> Tensor:
    """Pictures (..., 3, H, W) in [0, 1] as bytes (..., H, W, 3): fractions are cut off, not rounded."""
    return (pictures * LARGEST).clamp(0, LARGEST).to(torch.uint8).movedim(-3, -1)


def made_differences(frames: Tensor, made: Tensor) -> Tensor:
    """Float64 (m,): the mean difference of each made frame from the video's frame at its place.

    Args:
        frames: bytes (n, H, W, 3), the video.
        made: bytes (m, H, W, 3), in place of frames 1, 3, 5, ...; m = ceil(n / 2) - 1.
    """
    return mean_differences(frames[1 : 2 * len(made) : 2], made)


def smoothness(differences: Tensor) -> float:
    """The score of a video, 0..1."""
    return (LARGEST - float(differences.mean())) / LARGEST
