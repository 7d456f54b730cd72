"""Encodes and decodes piece by piece, so that memory depends on the tile and not on the clip.

A clip is cut into overlapping chunks of time, each chunk into overlapping tiles of space. Tiles are blended where
they overlap; a frame common to two chunks is taken from the earlier. Each chunk has its own causal padding and each
tile its own norm statistics, so a tiled result differs from an untiled one; it equals upstream's tiled one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class TilePlan:
    """Sizes along one side: input and output of a tile, and the number of input frames in a chunk."""

    size_in: int
    size_out: int
    frames_in: int
    overlap: float  # as a share of a tile

    def needs_tiles(self, x: Tensor) -> bool:
        """Tells whether (B, C, T, H, W) exceeds one tile."""
        frames, height, width = x.shape[-3:]
        return max(height, width) > self.size_in or frames > self.frames_in

    @property
    def step(self) -> int:
        return int(self.size_in * (1 - self.overlap))

    def narrowest(self, size: int) -> int:
        """Width of the last tile along a side of `size`."""
        return size - (size - 1) // self.step * self.step

    @property
    def blend(self) -> int:
        return int(self.size_out * self.overlap)

    @property
    def keep(self) -> int:
        return self.size_out - self.blend


def time_chunks(frames: int, chunk: int) -> list[tuple[int, int]]:
    """Ranges [start, end) of chunks; each shares one frame with the next."""
    starts = list(range(0, frames, chunk - 1))
    if len(starts) == 1:
        return [(0, frames)]
    chunks = [(start, min(following + 1, frames)) for start, following in pairwise(starts)]
    if chunks[-1][1] < frames:
        chunks.append((starts[-1], frames))
    return chunks


def run_tiled(
    process: Callable[[Tensor], Tensor],
    x: Tensor,
    plan: TilePlan,
    known: Callable[[int, int], Tensor | None] | None = None,
) -> Tensor:
    """Apply `process` to every tile of x (B, C, T, H, W) and assemble the results, see `tiled_chunks`."""
    return torch.cat(list(tiled_chunks(process, x, plan, known)), dim=2)


def tiled_chunks(
    process: Callable[[Tensor], Tensor],
    x: Tensor,
    plan: TilePlan,
    known: Callable[[int, int], Tensor | None] | None = None,
) -> Iterator[Tensor]:
    """Apply `process` to every tile of x (B, C, T, H, W); give the result chunk by chunk in time.

    Args:
        known: tells the result of the chunk of frames start..end - 1, or None for a chunk that has to be processed.
    """
    for start, end in time_chunks(x.shape[2], plan.frames_in):
        piece = None if known is None else known(start, end)
        if piece is None:
            piece = run_chunk(process, x[:, :, start:end], plan)
        yield piece[:, :, 1:] if start else piece


def run_chunk(process: Callable[[Tensor], Tensor], x: Tensor, plan: TilePlan) -> Tensor:
    """Process the tiles of one chunk row by row; a tile blends with neighbours that are already blended."""
    rows: list[Tensor] = []
    above: list[Tensor] = []
    for top in range(0, x.shape[-2], plan.step):
        row: list[Tensor] = []
        for left in range(0, x.shape[-1], plan.step):
            tile = process(x[..., top : top + plan.size_in, left : left + plan.size_in])
            if above:
                tile = _blend(above[len(row)], tile, plan.blend, dim=-2)
            if row:
                tile = _blend(row[-1], tile, plan.blend, dim=-1)
            row.append(tile)
        rows.append(torch.cat([tile[..., : plan.keep, : plan.keep] for tile in row], dim=-1))
        above = row
    return torch.cat(rows, dim=-2)


def _blend(before: Tensor, after: Tensor, extent: int, dim: int) -> Tensor:
    """`after`, whose first `extent` rows (or columns) are cross-faded with the last ones of `before`."""
    extent = min(extent, before.shape[dim], after.shape[dim])
    if extent == 0:
        return after
    weight = torch.arange(extent, dtype=after.dtype, device=after.device) / extent
    weight = weight.view((-1,) + (1,) * (-dim - 1))
    faded_out = before.narrow(dim, before.shape[dim] - extent, extent) * (1 - weight)
    faded_in = after.narrow(dim, 0, extent) * weight
    return torch.cat([faded_out + faded_in, after.narrow(dim, extent, after.shape[dim] - extent)], dim=dim)
