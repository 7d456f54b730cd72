"""Residual blocks of the autoencoder, 2-D (each frame on its own) and 3-D (causal)."""

from __future__ import annotations

from torch import Tensor, nn

from mora_env_opensora.models.vae.config import NORM_GROUPS
from mora_env_opensora.models.vae.convolution import CausalConv3d, FrameConv2d, merge_frames, silu, split_frames


def make_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)


class ResnetBlock3D(nn.Module):
    """norm, SiLU, conv, twice, and the input added; a 1x1x1 `nin_shortcut` where the channel count changes.

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
        hidden = self.conv2(silu(self.norm2(hidden)))
        return self.nin_shortcut(x) + hidden


class ResnetBlock2D(ResnetBlock3D):
    """The same with 2-D kernels, and the norms' statistics of one frame."""

    convolution = FrameConv2d

    def forward(self, x: Tensor) -> Tensor:
        return split_frames(super().forward(merge_frames(x)), x.shape[0])


def make_resnet(name: str, in_channels: int, out_channels: int) -> nn.Module:
    """A residual block by its config name."""
    return {"ResnetBlock2D": ResnetBlock2D, "ResnetBlock3D": ResnetBlock3D}[name](in_channels, out_channels)
