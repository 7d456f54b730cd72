"""Made weights: random tensors that a seed and the names of a network's tensors decide.

They stand for published weights in tests, and are of the same names and shapes. Reference values were computed with
weights of this recipe, so its numbers must not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

_SMALL = (  # last names of tensors that are 0.02 * x
    "token_embedding.weight",
    "positional_embedding",
    "temporal_positional_embedding",
    "class_embedding",
    "cls_token",
    "pos_embed",
    "position_emb",
    "scale_emb",
    "cls",
)
Values = NDArray[numpy.float64]
_COUNTERS = "num_batches_tracked"
_RAFT_ALIAS, _RAFT_DRAWN = ".norm3.", ".downsample.1."  # two names of one tensor in RAFT


@dataclass(frozen=True)
class Recipe:
    """How the weights of one file are made; x is standard normal.

    Args:
        half: values go through float16, as in an archive of half precision.
        logit_scale: value of that scalar; None = ln 100.
        gain: of matrices and kernels, gain * x / sqrt(inputs).
        one_d_weight: (a, b) of one-dimensional weights, a + b * x.
        special: the same for single tensors, by name.
    """

    seed: int
    half: bool = False
    logit_scale: float | None = None
    gain: float = 1.0
    one_d_weight: tuple[float, float] = (1.0, 0.1)
    special: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def made(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """Tensors of these names and shapes, float32; counters are int64 and 0."""
        random = numpy.random.RandomState(self.seed)
        found = {name: self._tensor(name, tuple(shapes[name]), random) for name in sorted(shapes)}
        for name in found:
            drawn = name.replace(_RAFT_ALIAS, _RAFT_DRAWN)
            if drawn != name and drawn in found:
                found[name] = found[drawn]
        return found

    def _tensor(self, name: str, shape: tuple[int, ...], random: numpy.random.RandomState) -> Tensor:
        if name.endswith(_COUNTERS):
            return torch.zeros(shape, dtype=torch.int64)
        if not shape:
            return torch.tensor(self._scalar(name), dtype=torch.float32)
        values = self._scaled(name, shape, random.standard_normal(shape)).astype(numpy.float32)
        return torch.from_numpy(values.astype(numpy.float16).astype(numpy.float32) if self.half else values)

    def _scalar(self, name: str) -> float:
        if not name.endswith("logit_scale"):
            return 0.01
        return math.log(100) if self.logit_scale is None else self.logit_scale

    def _scaled(self, name: str, shape: tuple[int, ...], x: Values) -> Values:
        if name in self.special:
            start, spread = self.special[name]
            return start + spread * x
        if name.endswith("running_mean"):
            return 0.1 * x
        if name.endswith("running_var"):
            return 1.0 + 0.1 * numpy.abs(x)
        if any(name == small or name.endswith(f".{small}") for small in _SMALL):
            return 0.02 * x
        if len(shape) == 1:
            start, spread = self.one_d_weight
            return start + spread * x if name.endswith(".weight") else 0.02 * x
        return self.gain * x / math.sqrt(math.prod(shape[1:]))


def made_clip(
    *, seed: int, frames: int, height: int, width: int, dy: int = 1, dx: int = 2, cell: int = 8, noise: int = 6
) -> Tensor:
    """Bytes (frames, height, width, 3): coloured cells that move by (dy, dx) pixels a frame, with noise."""
    random = numpy.random.RandomState(seed)
    base = random.randint(0, 250, (height // cell, width // cell, 3)).astype(numpy.uint8)
    base = base.repeat(cell, axis=0).repeat(cell, axis=1)
    moved = [
        numpy.roll(base, (t * dy, t * dx), axis=(0, 1)).astype(int) + random.randint(0, noise, (height, width, 3))
        for t in range(frames)
    ]
    return torch.from_numpy(numpy.stack(moved).clip(0, 255).astype(numpy.uint8))
