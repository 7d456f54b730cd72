"""The block's feed-forward: D -> 4D -> D with tanh-approximated GELU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class _GeluProjection(nn.Module):
    """A linear layer and GELU, one module for the published key `net.0.proj`."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Published keys `net.0.proj` and `net.2`; upstream's `net.1` is a dropout of 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_GeluProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.net(x)
