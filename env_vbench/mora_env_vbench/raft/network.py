"""RAFT: the optical flow between pictures. Parameters have the names of the published files without `module.`."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mora_env_vbench.correlation import CorrelationPyramid, all_pairs, cell_coordinates
from mora_env_vbench.raft.encoder import Encoder
from mora_env_vbench.raft.sizes import PUBLISHED, RaftSizes
from mora_env_vbench.raft.update_block import UpdateBlock
from mora_env_vbench.weights.loading import Shapes

NUM_LEVELS = 4
RADIUS = 4


class Raft(nn.Module):
    """Flow in pixels between pictures (N, 3, H, W) of values 0..255; H and W are multiples of 8, at least 128."""

    def __init__(self, sizes: RaftSizes = PUBLISHED) -> None:
        super().__init__()
        self._sizes = sizes
        self.fnet = Encoder(sizes.features, sizes.encoder, partial(nn.InstanceNorm2d, affine=False))
        self.cnet = Encoder(sizes.hidden + sizes.context, sizes.encoder, nn.BatchNorm2d)
        self.update_block = UpdateBlock(NUM_LEVELS * (2 * RADIUS + 1) ** 2, sizes.hidden, sizes.context)

    @classmethod
    def of_shapes(cls, shapes: Shapes) -> Raft:
        return cls(RaftSizes.of(shapes))

    def features(self, pictures: Tensor) -> Tensor:
        """(N, C, H/8, W/8), which `low_flow` compares between pictures."""
        features: Tensor = self.fnet(_scaled(pictures))
        return features

    def context(self, pictures: Tensor) -> Tensor:
        """(N, C, H/8, W/8) of the first picture of a pair, which starts and guides the recurrence."""
        context: Tensor = self.cnet(_scaled(pictures).contiguous(memory_format=torch.channels_last))
        return context

    def low_flow(self, first: Tensor, second: Tensor, context: Tensor, num_iterations: int) -> tuple[Tensor, Tensor]:
        """The flow in cells (N, 2, H/8, W/8), and the hidden state.

        Args:
            first, second: the `features` of both pictures.
            context: the `context` of the first picture.
        """
        hidden, inputs = context.split([self._sizes.hidden, self._sizes.context], dim=1)
        hidden, parts = hidden.tanh(), self.update_block.gru.context_parts(inputs.relu())
        pyramid = CorrelationPyramid(all_pairs(first, second), NUM_LEVELS, RADIUS)
        cells = cell_coordinates(first)
        targets = cells
        for _ in range(num_iterations):
            hidden, correction = self.update_block(hidden, parts, pyramid.windows(targets), targets - cells)
            targets = targets + correction
        return targets - cells, hidden

    def flow(self, first: Tensor, second: Tensor, context: Tensor, num_iterations: int) -> Tensor:
        """The flow in pixels (N, 2, H, W); arguments as in `low_flow`."""
        return self.update_block.upsampled(*self.low_flow(first, second, context, num_iterations))


def _scaled(pictures: Tensor) -> Tensor:
    return 2 * (pictures / 255.0) - 1.0
