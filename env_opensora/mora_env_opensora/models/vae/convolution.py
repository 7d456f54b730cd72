"""The two convolutions of the autoencoder, both (B, C, T, H, W) -> (B, C', T', H', W'), chosen by config name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def merge_frames(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B*T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def split_frames(x: Tensor, batch: int) -> Tensor:
    """(B*T, C, H, W) -> (B, C, T, H, W)."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


class FrameConv2d(nn.Conv2d):
    """A 2-D convolution of every frame on its own. Takes (B*T, C, H, W) too. Keys `weight`, `bias`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return super().forward(x)
        return split_frames(super().forward(merge_frames(x)), x.shape[0])


class CausalConv3d(nn.Module):
    """A 3-D convolution that sees no later frame: copies of the first frame stand before it. Keys `conv.*`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        """`padding` is of height and width; time is padded by kernel - 1 on the left, whatever the stride."""
        super().__init__()
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        self.leading_frames = kernel[0] - 1
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, (0, padding, padding))

    def forward(self, x: Tensor) -> Tensor:
        if self.leading_frames:
            x = torch.cat([x[:, :, :1].expand(-1, -1, self.leading_frames, -1, -1), x], dim=2)
        return self.conv(x)


def make_convolution(name: str, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    """A size-preserving convolution by its config name."""
    kind = {"Conv2d": FrameConv2d, "CausalConv3d": CausalConv3d}[name]
    return kind(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x), over the input where no gradient is wanted: `x` must be a fresh result of the caller."""
    return F.silu(x, inplace=not torch.is_grad_enabled())
