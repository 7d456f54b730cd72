"""Changes of resolution between the levels of the autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mora_env_opensora.models.vae.convolution import CausalConv3d, FrameConv2d


class Downsample(nn.Module):
    """Halves height and width of each frame: zeros on the right and below, then a 3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = FrameConv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Spatial2xTime2x3DDownsample(nn.Module):
    """Halves height, width and time: T frames become (T - 1) // 2 + 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class SpatialUpsample2x(nn.Module):
    """Doubles height and width by repetition, then applies a (1, 3, 3) convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, (1, 3, 3), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))


class Spatial2xTime2x3DUpsample(nn.Module):
    """Doubles height, width and time, except that the first frame stays one: T latents become 1 + 2 (T - 1) frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x[:, :, :1], x[:, :, 1:]
        larger = F.interpolate(first, scale_factor=(1, 2, 2), mode="trilinear")
        if rest.shape[2]:
            larger = torch.cat([larger, F.interpolate(rest, scale_factor=(2, 2, 2), mode="trilinear")], dim=2)
        return self.conv(larger)


def make_downsample(name: str, channels: int) -> nn.Module:
    """Make a downsampling layer by its config name, which is not empty."""
    kinds = {"Downsample": Downsample, "Spatial2xTime2x3DDownsample": Spatial2xTime2x3DDownsample}
    return kinds[name](channels)


def make_upsample(name: str, channels: int) -> nn.Module:
    """Make an upsampling layer by its config name, which is not empty."""
    kinds = {"SpatialUpsample2x": SpatialUpsample2x, "Spatial2xTime2x3DUpsample": Spatial2xTime2x3DUpsample}
    return kinds[name](channels)
