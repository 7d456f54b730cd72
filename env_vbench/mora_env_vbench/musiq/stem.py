"""MUSIQ's convolutions on single patches: weights are standardised, padding is that of TensorFlow's SAME."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class StandardisedConv2d(nn.Conv2d):
    """A convolution without bias whose filters are brought to mean 0 and standard deviation 1."""

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(num_inputs, num_outputs, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        axes = (1, 2, 3)
        weight = self.weight - self.weight.mean(axes, keepdim=True)
        weight = weight / (weight.std(axes, keepdim=True) + 1e-5)
        return functional.conv2d(same_padded(x, self.kernel_size[0], self.stride[0]), weight, stride=self.stride)


def same_padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros on all sides of square pictures so that one output belongs to each `stride` inputs."""
    side = x.shape[-1]
    missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    before, after = missing // 2, missing - missing // 2
    return functional.pad(x, (before, after, before, after))


class Bottleneck(nn.Module):
    """Three convolutions and a projected shortcut."""

    def __init__(self, num_hidden: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1 = StandardisedConv2d(num_hidden, num_hidden, 1)
        self.gn1 = nn.GroupNorm(32, num_hidden, eps=1e-4)
        self.conv2 = StandardisedConv2d(num_hidden, num_hidden, 3)
        self.gn2 = nn.GroupNorm(32, num_hidden, eps=1e-4)
        self.conv3 = StandardisedConv2d(num_hidden, num_outputs, 1)
        self.gn3 = nn.GroupNorm(32, num_outputs, eps=1e-4)
        self.conv_proj = StandardisedConv2d(num_hidden, num_outputs, 1)
        self.gn_proj = nn.GroupNorm(32, num_outputs, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.gn1(self.conv1(x)))
        y = functional.relu(self.gn2(self.conv2(y)))
        return functional.relu(self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x)))
