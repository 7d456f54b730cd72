"""The convolutional encoder of RAFT: pictures to features at an eighth of the resolution."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

MakeNorm = Callable[[int], nn.Module]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the block halves the resolution.

    The published files store the shortcut's norm under two names, `norm3` and `downsample.1`.
    """

    def __init__(self, num_inputs: int, num_outputs: int, stride: int, make_norm: MakeNorm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, padding=1)
        self.norm1 = make_norm(num_outputs)
        self.norm2 = make_norm(num_outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1:
            self.norm3 = make_norm(num_outputs)
            self.downsample = nn.Sequential(nn.Conv2d(num_inputs, num_outputs, 1, stride), self.norm3)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(shortcut + y)


class Encoder(nn.Module):
    """Pictures (N, 3, H, W) to features (N, num_outputs, H/8, W/8).

    Args:
        widths: channels at 1/2, 1/4 and 1/8 of the resolution.
    """

    def __init__(self, num_outputs: int, widths: tuple[int, int, int], make_norm: MakeNorm) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.norm1 = make_norm(half)
        self.conv1 = nn.Conv2d(3, half, 7, stride=2, padding=3)
        self.layer1 = _stage(half, half, 1, make_norm)
        self.layer2 = _stage(half, quarter, 2, make_norm)
        self.layer3 = _stage(quarter, eighth, 2, make_norm)
        self.conv2 = nn.Conv2d(eighth, num_outputs, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.conv1(pictures)))
        features: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return features


def _stage(num_inputs: int, num_outputs: int, stride: int, make_norm: MakeNorm) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(num_inputs, num_outputs, stride, make_norm),
        ResidualBlock(num_outputs, num_outputs, 1, make_norm),
    )
