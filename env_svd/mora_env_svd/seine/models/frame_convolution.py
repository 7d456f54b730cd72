"""Two-dimensional layers on each frame of (B, C, F, h, w)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def on_frames(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer of (N, C, h, w) to every frame of (B, C, F, h, w)."""
    return frames_apart(layer(frames_together(x)), x.shape[0])


def frames_together(x: Tensor) -> Tensor:
    """(B, C, F, h, w) -> (B*F, C, h, w)."""
    return x.transpose(1, 2).flatten(0, 1)


def frames_apart(x: Tensor, batch: int) -> Tensor:
    """(B*F, C, h, w) -> (B, C, F, h, w)."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


class FrameConvolution(nn.Conv2d):
    """A convolution of each frame."""

    def forward(self, x: Tensor) -> Tensor:
        return on_frames(super().forward, x)
