"""Colours as a network was trained on them: bytes to [0, 1], then mean and deviation of each channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Colours:
    """Mean and standard deviation of red, green and blue in [0, 1]."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def normalised(self, frames: Tensor) -> Tensor:
        """Frames (..., 3, H, W) of bytes or of floats in 0..255."""
        mean, deviation = (
            torch.tensor(values, dtype=torch.float32, device=frames.device).view(3, 1, 1)
            for values in (self.mean, self.deviation)
        )
        return (frames.float() / 255.0 - mean) / deviation


IMAGENET = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = Colours((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
