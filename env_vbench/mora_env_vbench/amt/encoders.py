"""The two encoders of AMT: features that are compared between frames, and a pyramid that is warped between them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """Three convolutions through a quarter of the channels, with instance norms without parameters."""

    def __init__(self, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, num_outputs // 4, 1)
        self.conv2 = nn.Conv2d(num_outputs // 4, num_outputs // 4, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(num_outputs // 4, num_outputs, 1)
        self.downsample: nn.Sequential | None = None
        if stride != 1:
            shortcut = nn.Conv2d(num_inputs, num_outputs, 1, stride)
            self.downsample = nn.Sequential(shortcut, nn.InstanceNorm2d(num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for convolution in (self.conv1, self.conv2, self.conv3):
            y = functional.relu(functional.instance_norm(convolution(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(shortcut + y)


class FeatureEncoder(nn.Module):
    """Frames (N, 3, H, W) to features (N, num_outputs, H/8, W/8)."""

    def __init__(self, num_outputs: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.conv1 = nn.Conv2d(3, half, 7, stride=2, padding=3)
        self.layer1 = nn.Sequential(Bottleneck(half, half, 1), Bottleneck(half, half, 1))
        self.layer2 = nn.Sequential(Bottleneck(half, quarter, 2), Bottleneck(quarter, quarter, 1))
        self.layer3 = nn.Sequential(Bottleneck(quarter, eighth, 2), Bottleneck(eighth, eighth, 1))
        self.conv2 = nn.Conv2d(eighth, num_outputs, 1)

    def forward(self, frames: Tensor) -> Tensor:
        x = functional.relu(functional.instance_norm(self.conv1(frames)))
        features: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return features


class PyramidEncoder(nn.Module):
    """Frames to features at 1/2, 1/4, 1/8 and 1/16 of the resolution, `widths` channels each."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        for number, (num_inputs, width) in enumerate(zip((3, *widths), widths, strict=False), start=1):
            level = nn.Sequential(activated_convolution(num_inputs, width, 2), activated_convolution(width, width))
            self.add_module(f"pyramid{number}", level)

    def forward(self, frames: Tensor) -> list[Tensor]:
        levels = [frames]
        for number in (1, 2, 3, 4):
            levels.append(self.get_submodule(f"pyramid{number}")(levels[-1]))
        return levels[1:]


def activated_convolution(num_inputs: int, num_outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution and a PReLU with a slope for each channel."""
    return nn.Sequential(nn.Conv2d(num_inputs, num_outputs, 3, stride, padding=1), nn.PReLU(num_outputs))
