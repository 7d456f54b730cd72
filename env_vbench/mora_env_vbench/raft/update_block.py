"""The recurrent part of RAFT: correlation and flow to a correction of the flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class MotionEncoder(nn.Module):
    """Windows of the correlation and the flow to features; the flow itself is the last two of them."""

    def __init__(self, num_correlations: int, num_outputs: int) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(num_correlations, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(192 + 64, num_outputs - 2, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        matches = functional.relu(self.convc2(functional.relu(self.convc1(correlation))))
        motion = functional.relu(self.convf2(functional.relu(self.convf1(flow))))
        features = functional.relu(self.conv(torch.cat([matches, motion], dim=1)))
        return torch.cat([features, flow], dim=1)


class SeparableGru(nn.Module):
    """A gated recurrent unit with 1x5 convolutions, then one with 5x1 convolutions."""

    def __init__(self, num_hidden: int, num_inputs: int) -> None:
        super().__init__()
        for number, kernel in enumerate([(1, 5), (5, 1)], start=1):
            padding = (kernel[0] // 2, kernel[1] // 2)
            for gate in "zrq":
                convolution = nn.Conv2d(num_hidden + num_inputs, num_hidden, kernel, padding=padding)
                self.add_module(f"conv{gate}{number}", convolution)

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        for number in (1, 2):
            both = torch.cat([hidden, inputs], dim=1)
            update = torch.sigmoid(self._convolved("z", number, both))
            reset = torch.sigmoid(self._convolved("r", number, both))
            proposal = torch.tanh(self._convolved("q", number, torch.cat([reset * hidden, inputs], dim=1)))
            hidden = (1 - update) * hidden + update * proposal
        return hidden

    def _convolved(self, gate: str, number: int, x: Tensor) -> Tensor:
        convolved: Tensor = self.get_submodule(f"conv{gate}{number}")(x)
        return convolved


class FlowHead(nn.Module):
    """The hidden state to a correction of the flow."""

    def __init__(self, num_hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_hidden, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        correction: Tensor = self.conv2(functional.relu(self.conv1(hidden)))
        return correction


class UpdateBlock(nn.Module):
    """One iteration: the next hidden state and the correction of the flow."""

    def __init__(self, num_correlations: int, num_hidden: int, num_context: int) -> None:
        super().__init__()
        self.encoder = MotionEncoder(num_correlations, num_hidden)
        self.gru = SeparableGru(num_hidden, num_hidden + num_context)
        self.flow_head = FlowHead(num_hidden)
        self.mask = nn.Sequential(nn.Conv2d(num_hidden, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 8 * 8 * 9, 1))

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        motion = self.encoder(flow, correlation)
        hidden = self.gru(hidden, torch.cat([context, motion], dim=1))
        return hidden, self.flow_head(hidden)

    def upsampled(self, flow: Tensor, hidden: Tensor) -> Tensor:
        """The flow (N, 2, h, w) at eight times the resolution: weighted means of 3x3 cells, weights from `hidden`."""
        batch, _, height, width = flow.shape
        weights = (0.25 * self.mask(hidden)).view(batch, 1, 9, 8, 8, height, width).softmax(dim=2)
        cells = functional.unfold(8 * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
        means = (weights * cells).sum(dim=2)
        return means.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, 8 * height, 8 * width)
