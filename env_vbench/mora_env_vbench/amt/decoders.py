"""The decoders of AMT: from one level of the pyramid to flows and features of the next finer one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mora_env_vbench.amt.encoders import activated_convolution
from mora_env_vbench.amt.warp import resized_flow, warped


class Flows(NamedTuple):
    """The flows (N, 2, h, w) from the wanted frame to both given frames, and features (N, C, h, w) of it."""

    to_first: Tensor
    to_second: Tensor
    features: Tensor


class Blends(NamedTuple):
    """k flows (N, 2 k, H, W) to both frames, and for each a mask (N, k, H, W) and a residual (N, 3 k, H, W)."""

    to_first: Tensor
    to_second: Tensor
    masks: Tensor
    residuals: Tensor


class SideBlock(nn.Module):
    """Five convolutions with a shortcut; the second and fourth change only the last `num_side` channels."""

    def __init__(self, num_channels: int, num_side: int) -> None:
        super().__init__()
        self._num_side = num_side
        self.conv1 = activated_convolution(num_channels, num_channels)
        self.conv2 = activated_convolution(num_side, num_side)
        self.conv3 = activated_convolution(num_channels, num_channels)
        self.conv4 = activated_convolution(num_side, num_side)
        self.conv5 = nn.Conv2d(num_channels, num_channels, 3, padding=1)
        self.prelu = nn.PReLU(num_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self._with_side(self.conv1(x), self.conv2)
        y = self._with_side(self.conv3(y), self.conv4)
        activated: Tensor = self.prelu(x + self.conv5(y))
        return activated

    def _with_side(self, x: Tensor, convolution: nn.Module) -> Tensor:
        main, side = x.split([x.shape[1] - self._num_side, self._num_side], dim=1)
        return torch.cat([main, convolution(side)], dim=1)


class CoarsestDecoder(nn.Module):
    """The first flows, from the coarsest level of both frames."""

    def __init__(self, num_inputs: int, num_outputs: int, num_side: int) -> None:
        super().__init__()
        self.convblock = _doubling(2 * num_inputs + 1, 2 * num_inputs, num_outputs + 4, num_side)

    def forward(self, first: Tensor, second: Tensor, position: float) -> Flows:
        """`position` of the wanted frame between the given ones, 0 to 1."""
        height, width = first.shape[2:]
        where = first.new_full((len(first), 1, height, width), position)
        return Flows(*self.convblock(torch.cat([first, second, where], dim=1)).tensor_split((2, 4), dim=1))


class MiddleDecoder(nn.Module):
    """Flows of the next finer level, from those of this level and both frames, warped by them."""

    def __init__(self, num_inputs: int, num_outputs: int, num_side: int) -> None:
        super().__init__()
        self.convblock = _doubling(3 * num_inputs + 4, 3 * num_inputs, num_outputs + 4, num_side)

    def forward(self, flows: Flows, first: Tensor, second: Tensor) -> Flows:
        to_first, to_second, features = self.convblock(_warped_inputs(flows, first, second)).tensor_split((2, 4), dim=1)
        to_first = to_first + resized_flow(flows.to_first, 2.0)
        return Flows(to_first, to_second + resized_flow(flows.to_second, 2.0), features)


class FinestDecoder(nn.Module):
    """Several flows at the full resolution, with a mask and a residual for each."""

    def __init__(self, num_inputs: int, num_side: int, num_flows: int) -> None:
        super().__init__()
        self._num_flows = num_flows
        self.convblock = _doubling(3 * num_inputs + 4, 3 * num_inputs, 8 * num_flows, num_side)

    def forward(self, flows: Flows, first: Tensor, second: Tensor) -> Blends:
        k = self._num_flows
        made = self.convblock(_warped_inputs(flows, first, second))
        to_first, to_second, masks, residuals = made.split([2 * k, 2 * k, k, 3 * k], dim=1)
        to_first = to_first + resized_flow(flows.to_first, 2.0).repeat(1, k, 1, 1)
        to_second = to_second + resized_flow(flows.to_second, 2.0).repeat(1, k, 1, 1)
        return Blends(to_first, to_second, masks.sigmoid(), residuals)


def _warped_inputs(flows: Flows, first: Tensor, second: Tensor) -> Tensor:
    """What a decoder computes from, channels last in memory: convolutions of a CPU are faster so."""
    warps = [warped(first, flows.to_first), warped(second, flows.to_second)]
    inputs = torch.cat([flows.features, *warps, flows.to_first, flows.to_second], dim=1)
    return inputs.contiguous(memory_format=torch.channels_last)


def _doubling(num_inputs: int, num_hidden: int, num_outputs: int, num_side: int) -> nn.Sequential:
    """A block whose output has twice the height and width of its input."""
    return nn.Sequential(
        activated_convolution(num_inputs, num_hidden),
        SideBlock(num_hidden, num_side),
        nn.ConvTranspose2d(num_hidden, num_outputs, 4, stride=2, padding=1),
    )
