"""Patches of a picture at three sizes, as MUSIQ takes them, with the position and the scale of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PATCH = 32  # pixels of a side
GRID = 10  # positions of patches are rounded to a grid of GRID x GRID
LONGER_SIDES = (224, 384)  # pixels; the third size is the picture's own


@dataclass(frozen=True)
class Patches:
    """The patches of pictures of one size; resized pictures are padded to as many patches as a square would have.

    Attributes:
        pixels: (N, tokens, 3 * PATCH * PATCH).
        positions: int64 (tokens,), row * GRID + column in the grid.
        scales: int64 (tokens,), the number of the size.
        is_real: bool (tokens,), False for padding.
    """

    pixels: Tensor
    positions: Tensor
    scales: Tensor
    is_real: Tensor

    def without_padding(self) -> Patches:
        """The real patches.

        The published network hides padding with attention scores of -1000, whose weights are 0 in float32. Without
        padding it gives the same scores and computes a quarter less for a picture of 16:9.
        """
        pixels = self.pixels[:, self.is_real]
        return Patches(pixels, *(each[self.is_real] for each in (self.positions, self.scales, self.is_real)))


def multiscale_patches(pictures: Tensor) -> Patches:
    """The patches of pictures (N, 3, H, W)."""
    parts = [_padded(_patches(_resized(pictures, side), scale), side) for scale, side in enumerate(LONGER_SIDES)]
    parts.append(_patches(pictures, len(LONGER_SIDES)))
    return Patches(
        torch.cat([part.pixels for part in parts], dim=1),
        torch.cat([part.positions for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat([part.is_real for part in parts]),
    )


def _resized(pictures: Tensor, longer_side: int) -> Tensor:
    height, width = pictures.shape[2:]
    ratio = longer_side / max(height, width)
    size = (round(height * ratio), round(width * ratio))
    return functional.interpolate(pictures, size, mode="bicubic", align_corners=False)


def _patches(pictures: Tensor, scale: int) -> Patches:
    """The picture is padded with zeros on all sides to whole patches, the odd pixel right and below."""
    height, width = pictures.shape[2:]
    rows, columns = math.ceil(height / PATCH), math.ceil(width / PATCH)
    down, right = rows * PATCH - height, columns * PATCH - width
    padded = functional.pad(pictures, (right // 2, right - right // 2, down // 2, down - down // 2))
    pixels = functional.unfold(padded, PATCH, stride=PATCH).transpose(1, 2)
    positions = _hashed(rows)[:, None] * GRID + _hashed(columns)
    positions = positions.flatten().to(pictures.device)
    return Patches(pixels, positions, torch.full_like(positions, scale), torch.ones_like(positions, dtype=torch.bool))


def _hashed(count: int) -> Tensor:
    """int64 (count,): the place in the grid that is nearest to each patch of a row or column."""
    places = torch.arange(GRID, dtype=torch.float32)[None, None]
    return functional.interpolate(places, count, mode="nearest")[0, 0].long()


def _padded(patches: Patches, longer_side: int) -> Patches:
    missing = math.ceil(longer_side / PATCH) ** 2 - len(patches.positions)
    return Patches(
        functional.pad(patches.pixels, (0, 0, 0, missing)),
        *(functional.pad(each, (0, missing)) for each in (patches.positions, patches.scales, patches.is_real)),
    )
