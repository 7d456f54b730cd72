"""The recurrent part of RAFT: correlation and flow to a correction of the flow."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_KERNELS = ((1, 5), (5, 1))  # of the two units of the recurrence


class MotionEncoder(nn.Module):
    """Windows of the correlation and the flow to `width` features; the flow itself is the last two of them."""

    def __init__(self, num_correlations: int, width: int) -> None:
        super().__init__()
        num_matches, num_motions = 3 * width // 2, width // 2
        self.convc1 = nn.Conv2d(num_correlations, 2 * width, 1)
        self.convc2 = nn.Conv2d(2 * width, num_matches, 3, padding=1)
        self.convf1 = nn.Conv2d(2, width, 7, padding=3)
        self.convf2 = nn.Conv2d(width, num_motions, 3, padding=1)
        self.conv = nn.Conv2d(num_matches + num_motions, width - 2, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        matches = functional.relu(self.convc2(functional.relu(self.convc1(correlation))))
        motion = functional.relu(self.convf2(functional.relu(self.convf1(flow))))
        features = functional.relu(self.conv(torch.cat([matches, motion], dim=1)))
        return torch.cat([features, flow], dim=1)


class GatePart(NamedTuple):
    """One unit with a given context: what the context adds to the convolutions, and the weights of the other inputs."""

    gates_sum: Tensor
    proposal_sum: Tensor
    gates_weight: Tensor
    proposal_weight: Tensor

    def gates(self, x: Tensor) -> Tensor:
        """z and r before the sigmoid (N, 2 C, h, w)."""
        return self.gates_sum + functional.conv2d(x, self.gates_weight, padding="same")

    def proposal(self, x: Tensor) -> Tensor:
        """q before tanh (N, C, h, w)."""
        return self.proposal_sum + functional.conv2d(x, self.proposal_weight, padding="same")


class SeparableGru(nn.Module):
    """A gated recurrent unit with 1x5 convolutions, then one with 5x1 convolutions.

    Its inputs are a context, the same in all iterations, and the motion. The context's part of all convolutions is
    computed once (`context_parts`), and the gates z and r, which have the same inputs, are one convolution.
    """

    def __init__(self, num_hidden: int, num_context: int, num_motion: int) -> None:
        super().__init__()
        self._context = slice(num_hidden, num_hidden + num_context)
        for number, kernel in enumerate(_KERNELS, start=1):
            for gate in "zrq":
                num_inputs = num_hidden + num_context + num_motion
                convolution = nn.Conv2d(num_inputs, num_hidden, kernel, padding="same")
                self.add_module(_name(gate, number), convolution)

    def context_parts(self, context: Tensor) -> list[GatePart]:
        """For each of both units, the context's part and the weights of the other inputs; `forward` takes them."""
        return [self._context_part(number, context) for number in (1, 2)]

    def forward(self, hidden: Tensor, motion: Tensor, parts: list[GatePart]) -> Tensor:
        for part in parts:
            gates = part.gates(torch.cat([hidden, motion], dim=1)).sigmoid()
            update, reset = gates.chunk(2, dim=1)
            proposal = part.proposal(torch.cat([reset * hidden, motion], dim=1)).tanh()
            hidden = torch.lerp(hidden, proposal, update)
        return hidden

    def _context_part(self, number: int, context: Tensor) -> GatePart:
        weight, bias = (
            torch.cat([self.get_parameter(f"{_name(gate, number)}.{kind}") for gate in "zrq"])
            for kind in ("weight", "bias")
        )
        of_context = weight[:, self._context].contiguous()
        rest = torch.cat([weight[:, : self._context.start], weight[:, self._context.stop :]], dim=1)
        sums = functional.conv2d(context, of_context, bias, padding="same")
        num_gates = 2 * len(weight) // 3
        return GatePart(
            *(each.contiguous(memory_format=torch.channels_last) for each in sums.tensor_split((num_gates,), dim=1)),
            *(each.contiguous(memory_format=torch.channels_last) for each in rest.tensor_split((num_gates,))),
        )


def _name(gate: str, number: int) -> str:
    return f"conv{gate}{number}"


class FlowHead(nn.Module):
    """The hidden state to a correction of the flow."""

    def __init__(self, num_hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_hidden, 2 * num_hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(2 * num_hidden, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        correction: Tensor = self.conv2(functional.relu(self.conv1(hidden)))
        return correction


class UpdateBlock(nn.Module):
    """One iteration: the next hidden state and the correction of the flow."""

    def __init__(self, num_correlations: int, num_hidden: int, num_context: int) -> None:
        super().__init__()
        self.encoder = MotionEncoder(num_correlations, num_hidden)
        self.gru = SeparableGru(num_hidden, num_context, num_hidden)
        self.flow_head = FlowHead(num_hidden)
        self.mask = nn.Sequential(
            nn.Conv2d(num_hidden, 2 * num_hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(2 * num_hidden, 8 * 8 * 9, 1)
        )

    def forward(
        self, hidden: Tensor, parts: list[GatePart], correlation: Tensor, flow: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`parts`: `gru.context_parts` of the context."""
        hidden = self.gru(hidden, self.encoder(flow, correlation), parts)
        return hidden, self.flow_head(hidden)

    def upsampled(self, flow: Tensor, hidden: Tensor) -> Tensor:
        """The flow (N, 2, h, w) at eight times the resolution: weighted means of 3x3 cells, weights from `hidden`."""
        batch, _, height, width = flow.shape
        weights = (0.25 * self.mask(hidden)).view(batch, 1, 9, 8, 8, height, width).softmax(dim=2)
        cells = functional.unfold(8 * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
        means = (weights * cells).sum(dim=2)
        return means.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2, 8 * height, 8 * width)
