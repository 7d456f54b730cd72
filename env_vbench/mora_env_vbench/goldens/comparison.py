"""How far values are from reference values, against what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Differences:
    """The largest difference of a case, and whether all of it is within its tolerance.

    A difference is relative to the largest reference value where that is above 1. Texts, decisions and whole numbers
    that differ count as infinite.

    Args:
        tolerance: of numbers with fractions, unless `add` is told another.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self.largest = 0.0
        self.is_within = True
        self.count = 0

    def add(self, got: Any, reference: Any, tolerance: float | None = None) -> None:
        """Compare a value with its reference, element by element."""
        allowed = self._tolerance if tolerance is None else tolerance
        if isinstance(reference, Mapping):
            for key, value in reference.items():
                self.add(got[key], value, tolerance)
            return
        found = self._difference(got, reference)
        self.count += 1
        self.largest = max(self.largest, found)
        self.is_within &= found <= allowed

    def fail(self) -> None:
        """Count as different, whatever was compared."""
        self.largest, self.is_within = math.inf, False

    def _difference(self, got: Any, reference: Any) -> float:
        if isinstance(reference, bool | str) or reference is None:
            return 0.0 if got == reference else math.inf
        ours, theirs = _numbers(got), _numbers(reference)
        if ours.shape != theirs.shape or not bool(ours.isfinite().all()):
            return math.inf
        if theirs.numel() == 0:
            return 0.0
        difference = float((ours - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))
        is_whole = not _is_fractional(reference)
        return math.inf if is_whole and difference else difference


def _numbers(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu().double()
    return torch.tensor(value, dtype=torch.float64)


def _is_fractional(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_floating_point()
    if isinstance(value, Sequence):
        return any(_is_fractional(each) for each in value)
    return isinstance(value, float)
