"""Residual blocks of the autoencoder, 2-D (each frame separately) and 3-D (causal)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mora_env_opensora.models.vae.config import NORM_GROUPS
from mora_env_opensora.models.vae.convolution import (
    SLICE_FRAMES,
    CausalConv3d,
    FrameConv2d,
    merge_frames,
    silu,
    split_frames,
)


def make_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)


class ResnetBlock3D(nn.Module):
    """Twice norm, SiLU and conv, plus the input; a 1x1x1 `nin_shortcut` if the channel count changes.

    The norms' statistics span all frames, so only the convolutions are causal.
    """

    convolution: type[nn.Module] = CausalConv3d

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = make_norm(in_channels)
        self.conv1 = self.convolution(in_channels, out_channels, 3, padding=1)
        self.norm2 = make_norm(out_channels)
        self.conv2 = self.convolution(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = (
            self.convolution(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(silu(self.norm1(x)))
        hidden = silu(self.norm2(hidden))  # a new name would keep the norm's input alive during conv2
        return self.nin_shortcut(x) + self.conv2(hidden)


class ResnetBlock2D(ResnetBlock3D):
    """The same with 2-D kernels and norm statistics per frame."""

    convolution = FrameConv2d

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return split_frames(super().forward(merge_frames(x)), x.shape[0])
        pieces = (super(ResnetBlock2D, self).forward(merge_frames(piece)) for piece in x.split(SLICE_FRAMES, dim=2))
        return torch.cat([split_frames(piece, x.shape[0]) for piece in pieces], dim=2)


def make_resnet(name: str, in_channels: int, out_channels: int) -> nn.Module:
    """Make a residual block by its config name."""
    return {"ResnetBlock2D": ResnetBlock2D, "ResnetBlock3D": ResnetBlock3D}[name](in_channels, out_channels)
