"""A gradient compared with finite differences along random directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

_STEPS = (0.03, 0.01, 0.1, 0.003, 0.3, 0.001)  # relative to the tensor's size; the first that agrees is enough
_NUM_RANDOM_DIRECTIONS = 2
_NOISE = 3e-7  # relative error of a value that was computed in float32


@dataclass(frozen=True)
class Tolerances:
    """Largest relative errors.

    Along random directions the derivative is small against rounding, so it can only show that a part is missing; along
    the gradient itself it is large, and shows a wrong scale.
    """

    along_gradient: float
    random: float


def disagreement(
    function: Callable[[torch.Tensor], float],
    at: torch.Tensor,
    gradient: torch.Tensor,
    tolerances: Tolerances,
    seed: int,
) -> tuple[float, str | None]:
    """Compare a gradient with central differences.

    Args:
        function: the scalar as a function of the tensor.
        gradient: to check, of the shape of `at`.
        seed: of the random directions.

    Returns:
        the largest relative error along the gradient, and what disagrees, or None.
    """
    generator = torch.Generator().manual_seed(seed)
    size = float(at.double().square().mean().sqrt()) or 1.0
    signs = [_signs(at, generator) for _ in range(_NUM_RANDOM_DIRECTIONS + 1)]
    along = torch.where(gradient == 0, signs[0], gradient.sign().to(at.dtype)) * size
    scale = float((gradient.double() * along.double()).sum())
    spread = size * float(gradient.double().norm())
    error, told = _error(function, at, along, scale, scale, tolerances.along_gradient)
    if told is not None:
        return error, f"along the gradient {told}"
    for direction in signs[1:]:
        expected = float((gradient.double() * direction.double()).sum()) * size
        _, told = _error(function, at, direction * size, expected, spread, tolerances.random)
        if told is not None:
            return error, f"along a random direction {told}"
    return error, None


def _signs(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like.dtype)


def _error(
    function: Callable[[torch.Tensor], float],
    at: torch.Tensor,
    direction: torch.Tensor,
    expected: float,
    scale: float,
    tolerance: float,
) -> tuple[float, str | None]:
    """Smallest error over the step sizes, relative to `scale`; the words name the best difference."""
    best, found, is_measurable = float("inf"), float("nan"), False
    for step in _STEPS:
        ahead, behind = function(at + step * direction), function(at - step * direction)
        slope = (ahead - behind) / (2.0 * step)
        distance = abs(slope - expected)
        is_measurable |= distance > _NOISE * max(abs(ahead), abs(behind)) / step
        error = distance / abs(scale) if scale else float("inf")
        if error < best:
            best, found = error, slope
        if best <= tolerance:
            return best, None
    if not is_measurable:
        return 0.0, None  # as with the bias of attention's keys, which has no effect
    return best, f"backward gives {expected:.6g}, differences give {found:.6g}"
