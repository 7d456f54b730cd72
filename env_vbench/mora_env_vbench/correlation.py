"""Correlation of every cell of one feature map with every cell of another, looked up around a flow (RAFT, AMT)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def all_pairs(first: Tensor, second: Tensor) -> Tensor:
    """(B, h1, w1, h2, w2): scalar products of the cells of two feature maps (B, C, h, w), divided by sqrt(C)."""
    batch, channels, *size = first.shape
    products = first.flatten(2).transpose(1, 2) @ second.flatten(2)
    return (products / math.sqrt(channels)).view(batch, *size, *second.shape[2:])


def cell_coordinates(batch: int, height: int, width: int, device: torch.device) -> Tensor:
    """(B, 2, h, w): x and y of each cell."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y]).float().expand(batch, -1, -1, -1)


class CorrelationPyramid:
    """The correlation of each source cell with all target cells, at halved resolutions of the targets.

    Args:
        volume: (B, h1, w1, h2, w2), see `all_pairs`; h2 and w2 at least 2 ** num_levels.
        radius: of the window that a look-up returns.
    """

    def __init__(self, volume: Tensor, num_levels: int, radius: int) -> None:
        self._sources = volume.shape[:3]
        self._radius = radius
        level = volume.reshape(-1, 1, *volume.shape[3:])
        self._levels = [level]
        for _ in range(num_levels - 1):
            level = functional.avg_pool2d(level, 2)
            self._levels.append(level)

    def windows(self, centres: Tensor) -> Tensor:
        """(B, levels * (2 r + 1) ** 2, h1, w1): the window of each source cell around its centre (B, 2, h1, w1)."""
        points = centres.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        offsets = self._offsets(centres)
        found = [
            _sampled(level, points / 2**number + offsets).view(*self._sources, -1)
            for number, level in enumerate(self._levels)
        ]
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2).contiguous()

    def _offsets(self, like: Tensor) -> Tensor:
        """(2 r + 1, 2 r + 1, 2): x grows along the first axis, as the published weights expect."""
        steps = torch.arange(-self._radius, self._radius + 1, device=like.device, dtype=like.dtype)
        return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)


def _sampled(images: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of images (N, 1, h, w) at points (N, a, b, 2) in pixels; 0 outside."""
    height, width = images.shape[-2:]
    span = torch.tensor([width - 1, height - 1], device=points.device, dtype=points.dtype)
    return functional.grid_sample(images, 2 * points / span - 1, align_corners=True)
