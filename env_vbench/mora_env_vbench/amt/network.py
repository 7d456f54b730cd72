"""AMT-S: the frame between two frames. Parameters have the names of the published file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mora_env_vbench.amt.decoders import Blends, CoarsestDecoder, FinestDecoder, Flows, MiddleDecoder
from mora_env_vbench.amt.encoders import FeatureEncoder, PyramidEncoder
from mora_env_vbench.amt.sizes import PUBLISHED, AmtSizes
from mora_env_vbench.amt.update_block import UpdateBlock
from mora_env_vbench.amt.warp import resized_flow, warped
from mora_env_vbench.correlation import CorrelationPyramid, all_pairs, cell_coordinates
from mora_env_vbench.weights.loading import Shapes

NUM_LEVELS = 4
RADIUS = 3
NUM_FLOWS = 3
MIDDLE = 0.5  # position of the wanted frame between the given ones


@dataclass(frozen=True)
class Correlations:
    """The correlations of a pair of frames in both directions."""

    first_to_second: CorrelationPyramid
    second_to_first: CorrelationPyramid
    cells: Tensor

    @classmethod
    def of(cls, first: Tensor, second: Tensor) -> Correlations:
        """Of the features (N, C, h, w) of both frames."""
        first_to_second = CorrelationPyramid(all_pairs(first, second), NUM_LEVELS, RADIUS)
        second_to_first = CorrelationPyramid(all_pairs(second, first), NUM_LEVELS, RADIUS)
        return cls(first_to_second, second_to_first, cell_coordinates(first))

    def windows(self, flows: Tensor) -> Tensor:
        """Around the flows (N, 4, h, w), which are extended linearly to the whole way between both frames."""
        to_first, to_second = flows.chunk(2, dim=1)
        first = self.first_to_second.windows(self.cells + to_second / MIDDLE)
        second = self.second_to_first.windows(self.cells + to_first / (1 - MIDDLE))
        return torch.cat([first, second], dim=1)


class Amt(nn.Module):
    """The middle of two frames (N, 3, H, W) of values 0..1; H and W are multiples of 16, at least 128."""

    def __init__(self, sizes: AmtSizes = PUBLISHED) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = sizes.pyramid
        num_windows = NUM_LEVELS * (2 * RADIUS + 1) ** 2
        self.feat_encoder = FeatureEncoder(sizes.features, sizes.encoder)
        self.encoder = PyramidEncoder(sizes.pyramid)
        self.decoder4 = CoarsestDecoder(sixteenth, eighth, sizes.side)
        self.decoder3 = MiddleDecoder(eighth, quarter, sizes.side)
        self.decoder2 = MiddleDecoder(quarter, half, sizes.side)
        self.decoder1 = FinestDecoder(half, sizes.side, NUM_FLOWS)
        self.update4 = UpdateBlock(num_windows, eighth, 1, sizes.update)
        self.update3 = UpdateBlock(num_windows, quarter, 2, sizes.update)
        self.update2 = UpdateBlock(num_windows, half, 4, sizes.update)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * NUM_FLOWS, 6 * NUM_FLOWS, 3, padding=1),
            nn.PReLU(6 * NUM_FLOWS),
            nn.Conv2d(6 * NUM_FLOWS, 3, 3, padding=1),
        )

    @classmethod
    def of_shapes(cls, shapes: Shapes) -> Amt:
        return cls(AmtSizes.of(shapes))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, 3, H, W), values 0..1."""
        mean = torch.cat([first, second], dim=2).mean(dim=(1, 2, 3), keepdim=True)
        first, second = first - mean, second - mean
        levels = list(zip(self.encoder(first), self.encoder(second), strict=True))
        # The correlations are freed before the finest decoder, which needs the most memory.
        flows = self._flows(levels[1:], Correlations.of(self.feat_encoder(first), self.feat_encoder(second)))
        return self._combined(self.decoder1(flows, *levels[0]), first, second, mean)

    def _flows(self, levels: list[tuple[Tensor, Tensor]], correlations: Correlations) -> Flows:
        """Flows and features at 1/2, by way of 1/8 and 1/4, from both frames' features at 1/4, 1/8 and 1/16."""
        quarter, eighth, sixteenth = levels
        flows = _updated(self.update4, self.decoder4(*sixteenth, MIDDLE), correlations, scale=1)
        flows = _updated(self.update3, self.decoder3(flows, *eighth), correlations, scale=2)
        return _updated(self.update2, self.decoder2(flows, *quarter), correlations, scale=4)

    def _combined(self, blends: Blends, first: Tensor, second: Tensor, mean: Tensor) -> Tensor:
        """The mean of the blends of both warped frames, and a correction from all blends."""
        flows = zip(*(flow.split(2, dim=1) for flow in (blends.to_first, blends.to_second)), strict=True)
        masks, residuals = blends.masks.split(1, dim=1), blends.residuals.split(3, dim=1)
        made = [
            mask * warped(first, to_first) + (1 - mask) * warped(second, to_second) + mean + residual
            for (to_first, to_second), mask, residual in zip(flows, masks, residuals, strict=True)
        ]
        combined = torch.stack(made, dim=1).mean(dim=1) + self.comb_block(torch.cat(made, dim=1))
        return combined.clamp(0, 1)


def _updated(update: UpdateBlock, flows: Flows, correlations: Correlations, *, scale: int) -> Flows:
    """The flows and features with their corrections; they are `scale` times finer than 1/8."""
    both = torch.cat([flows.to_first, flows.to_second], dim=1)
    coarse = both if scale == 1 else resized_flow(both, 1 / scale)
    flow_change, feature_change = update(flows.features, coarse, correlations.windows(coarse))
    to_first, to_second = (both + flow_change).chunk(2, dim=1)
    return Flows(to_first, to_second, flows.features + feature_change)
