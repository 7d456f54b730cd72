"""The sizes of a DINO model, told by the shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from mora_env_vbench.weights.loading import Shapes, num_blocks

_HEAD_WIDTH = 64  # of every published model


@dataclass(frozen=True)
class DinoSizes:
    """`patch` is a side in pixels, `grid` the patches along a side of the pictures that the model was trained on."""

    patch: int
    grid: int
    width: int
    num_blocks: int
    num_heads: int

    @property
    def side(self) -> int:
        """Side in pixels of the pictures that the model was trained on."""
        return self.patch * self.grid

    @classmethod
    def of(cls, shapes: Shapes) -> DinoSizes:
        """Raises KeyError, IndexError or ValueError if the tensors are not those of DINO."""
        width, _, patch, _ = shapes["patch_embed.proj.weight"]
        grid = isqrt(shapes["pos_embed"][1] - 1)
        return cls(patch, grid, width, num_blocks(shapes, "blocks."), width // _HEAD_WIDTH)
