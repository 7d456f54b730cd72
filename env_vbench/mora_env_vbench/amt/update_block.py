"""AMT's update of flows and features from the correlation; it works at 1/8 of the frames' resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mora_env_vbench.amt.sizes import UpdateSizes
from mora_env_vbench.amt.warp import resized, resized_flow


class UpdateBlock(nn.Module):
    """Corrections of both flows and of the features.

    Args:
        num_windows: channels of the correlation windows of one direction.
        num_features: channels of the features.
        scale: how many times finer than 1/8 features and corrections are.
    """

    def __init__(self, num_windows: int, num_features: int, scale: int, sizes: UpdateSizes) -> None:
        super().__init__()
        self._scale = scale
        hidden = sizes.hidden
        self.convc1 = nn.Conv2d(2 * num_windows, sizes.correlation, 1)
        self.convf1 = nn.Conv2d(4, 2 * sizes.flow, 7, padding=3)
        self.convf2 = nn.Conv2d(2 * sizes.flow, sizes.flow, 3, padding=1)
        self.conv = nn.Conv2d(sizes.correlation + sizes.flow, sizes.joint, 3, padding=1)
        self.gru = _two_convolutions(sizes.joint + 4 + num_features, hidden, hidden)
        self.feat_head = _two_convolutions(hidden, hidden, num_features)
        self.flow_head = _two_convolutions(hidden, hidden, 4)

    def forward(self, features: Tensor, flows: Tensor, correlation: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections of the flows (N, 4, ..) and of the features, both at the features' resolution.

        Args:
            features: (N, C, s h, s w), s the scale.
            flows: (N, 4, h, w), both flows at 1/8.
            correlation: (N, 2 * num_windows, h, w).
        """
        matches = _leaky(self.convc1(correlation))
        motion = _leaky(self.convf2(_leaky(self.convf1(flows))))
        joint = _leaky(self.conv(torch.cat([matches, motion], dim=1)))
        if self._scale != 1:
            features = resized(features, 1 / self._scale)
        hidden = self.gru(torch.cat([joint, flows, features], dim=1))
        flow_change, feature_change = self.flow_head(hidden), self.feat_head(hidden)
        if self._scale == 1:
            return flow_change, feature_change
        return resized_flow(flow_change, self._scale), resized(feature_change, self._scale)


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.1)


def _two_convolutions(num_inputs: int, num_hidden: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_inputs, num_hidden, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(num_hidden, num_outputs, 3, padding=1),
    )
