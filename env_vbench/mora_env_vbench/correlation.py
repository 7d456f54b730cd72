"""Correlation of every cell of one feature map with every cell of another, looked up around a flow (RAFT, AMT)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def all_pairs(first: Tensor, second: Tensor) -> Tensor:
    """(B, h1, w1, h2, w2): scalar products of the cells of two feature maps (B, C, h, w), divided by sqrt(C)."""
    batch, channels, *size = first.shape
    products = (first.flatten(2) / math.sqrt(channels)).transpose(1, 2) @ second.flatten(2)
    return products.view(batch, *size, *second.shape[2:])


def cell_coordinates(features: Tensor) -> Tensor:
    """(B, 2, h, w): x and y of each cell of features (B, C, h, w), channels last in memory."""
    batch, _, height, width = features.shape
    rows, columns = (torch.arange(length, device=features.device) for length in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).float().expand(batch, -1, -1, -1).permute(0, 3, 1, 2)


class CorrelationPyramid:
    """The correlation of each source cell with all target cells, at halved resolutions of the targets.

    Args:
        volume: (B, h1, w1, h2, w2), see `all_pairs`; h2 and w2 at least 2 ** num_levels.
        radius: of the window that a look-up returns.
    """

    def __init__(self, volume: Tensor, num_levels: int, radius: int) -> None:
        self._sources = volume.shape[:3]
        self._radius = radius
        level = volume.flatten(0, 2)
        self._levels = [level]
        for _ in range(num_levels - 1):
            level = functional.avg_pool2d(level, 2)
            self._levels.append(level)

    def windows(self, centres: Tensor) -> Tensor:
        """(B, levels * (2 r + 1) ** 2, h1, w1): the window of each source cell around its centre (B, 2, h1, w1).

        In a window, x grows along the first axis, as the published weights expect.
        """
        points = centres.permute(0, 2, 3, 1).reshape(-1, 2)
        found = [
            _windows(level, points / 2**number, self._radius).view(*self._sources, -1)
            for number, level in enumerate(self._levels)
        ]
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


def _windows(images: Tensor, centres: Tensor, radius: int) -> Tensor:
    """Bilinear samples (N, 2 r + 1, 2 r + 1) of images (N, h, w) around centres (N, 2), in steps of a pixel; 0 outside.

    All samples of a window have the same fractions, so the (2 r + 2) ** 2 pixels under it are read only once.
    """
    height, width = images.shape[1:]
    corners = centres.floor()
    x_part, y_part = (centres - corners)[:, :, None, None].unbind(dim=1)
    steps = torch.arange(-radius, radius + 2, device=images.device)
    x, y = (corners.long()[:, :, None] + steps).unbind(dim=1)
    is_inside = ((x >= 0) & (x < width))[:, :, None] & ((y >= 0) & (y < height))[:, None]
    places = x.clamp(0, width - 1)[:, :, None] + width * y.clamp(0, height - 1)[:, None]
    pixels = images.flatten(1).gather(1, places.flatten(1)).view(places.shape) * is_inside
    columns = torch.lerp(pixels[:, :-1], pixels[:, 1:], x_part)
    return torch.lerp(columns[:, :, :-1], columns[:, :, 1:], y_part)
