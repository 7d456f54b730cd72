"""The model: it changes colours and local contrast of pictures. Plain torch; it knows nothing of Mora."""

from __future__ import annotations

import torch
from kornia.color import rgb_to_yuv, yuv_to_rgb
from kornia.filters import gaussian_blur2d
from torch import nn

WIDTH = 16


class Stylist(nn.Module):
    """Adds a small change to a picture in YUV; a style vector shifts the features from which the change is made."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(6, WIDTH, 3, padding=1)
        self.shift = nn.Linear(WIDTH, WIDTH)
        self.change = nn.Conv2d(WIDTH, 3, 3, padding=1)

    def forward(self, images: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Restyle pictures.

        Args:
            images: (B, 3, H, W), about [-1, 1].
            style: (WIDTH,).
        """
        yuv = rgb_to_yuv(0.5 + 0.5 * images)
        blurred = gaussian_blur2d(yuv, (5, 5), (1.5, 1.5))
        features = self.features(torch.cat([yuv, yuv - blurred], dim=1))
        features = nn.functional.silu(features + self.shift(style)[:, None, None])
        return 2.0 * yuv_to_rgb(yuv + 0.1 * self.change(features)) - 1.0
