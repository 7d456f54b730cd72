"""Measured quality of a clip, computed with numpy and without a model.

All measures use luma of at most `_MAX_SIDE` pixels a side; higher is better; none depends on the prompt. `MEASURES` is
their only list, with the weight of each in the measured judge's score. Coherence, detail and order use only pairs of
frames that differ, because frozen frames say nothing about them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mora_data.reading.fitting import Clip

_MAX_SIDE = 160
_SHIFTS = tuple((dy, dx) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2))
_BLOCK = 8  # pixels; every block finds its own shift
_FLOOR = 0.05  # grey levels squared: detail below it comes from rounding and the video codec
_STILL = 1.0  # a frame is unchanged if its most changed blocks differ by less on average, in grey levels
_CHANGED_SHARE = 0.97  # quantile of blocks that counts as the most changed
_PLAIN_SHARE = 0.25  # quantile of blocks that counts as those with least detail
_GARISH = 0.35

Plane = npt.NDArray[np.float32]


Measures = Mapping[str, float]  # of one clip, by name


@dataclass(frozen=True)
class Seen:
    """A clip and what several measures need of it.

    Attributes:
        alive: for each pair of adjacent frames, whether they differ.
        persists: mean energy of fine detail that the next frame shows again, shifted or not.
        is_lost: the same of detail that it does not show again.
    """

    clip: Clip
    luma: Plane
    fine: Plane
    alive: npt.NDArray[np.bool_]
    persists: float
    is_lost: float

    @classmethod
    def of(cls, clip: Clip) -> Seen:
        """Look at a clip, uint8 (frames, height, width, 3), of two frames or more."""
        luma = _luma(clip)
        fine = _fine(luma)
        alive = np.quantile(_blocks(np.abs(np.diff(luma, axis=0))), _CHANGED_SHARE, axis=(1, 2)) > _STILL
        persisting, lost = _detail_energy(fine)
        used = alive if alive.any() else np.ones_like(alive)
        return cls(clip, luma, fine, alive, float(persisting[used].mean()), float(lost[used].mean()))


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        weight: chosen so that an intact clip scores higher than the same clip broken (`mora bench judges`).
    """

    of: Callable[[Seen], float]
    weight: float


def measure(clip: Clip) -> Measures:
    """Compute all measures of a clip, uint8 (frames, height, width, 3), of two frames or more."""
    seen = Seen.of(clip)
    return {name: each.of(seen) for name, each in MEASURES.items()}


def _coherence(seen: Seen) -> float:
    """Log of fine detail that the next frame shows again, shifted or not, over detail that it does not."""
    return _log_ratio(seen.persists, seen.is_lost, _FLOOR) if seen.alive.any() else 0.0


def _detail(seen: Seen) -> float:
    """Log of fine detail that persists: sharpness."""
    return float(np.log(seen.persists + _FLOOR))


def _cleanness(seen: Seen) -> float:
    """Minus the log of fine detail where a frame has least: noise is everywhere, detail is not."""
    return -float(np.log(np.quantile(_blocks(seen.fine**2), _PLAIN_SHARE) + _FLOOR))


def _order(seen: Seen) -> float:
    """Log of how much more a frame differs from the next but one than from the next: frames are in order."""
    both = seen.alive[:-1] & seen.alive[1:]
    if not both.any():
        return 0.0
    near, far = (np.abs(seen.luma[step:] - seen.luma[:-step]).mean(axis=(1, 2)) for step in (1, 2))
    nearest = (near[:-1] + near[1:]) / 2
    return float(np.log((far[both] + _FLOOR) / (nearest[both] + _FLOOR)).mean())


def _steadiness(seen: Seen) -> float:
    """Minus the change of overall brightness and contrast from frame to frame beyond its trend (flicker)."""
    return -_flicker(seen.luma)


def _liveliness(seen: Seen) -> float:
    """Share of frames that differ anywhere from the one before (not frozen)."""
    return float(seen.alive.mean())


def _colour(seen: Seen) -> float:
    """Mean saturation, up to a limit: grey clips rank lower, garish ones not higher."""
    pixels = np.asarray(seen.clip, dtype=np.float32)
    largest = pixels.max(axis=-1)
    saturation = (largest - pixels.min(axis=-1)) / np.maximum(largest, 1.0)
    return float(min(saturation.mean(), _GARISH))


MEASURES: Mapping[str, Measure] = {
    "coherence": Measure(_coherence, 0.55),
    "detail": Measure(_detail, 1.3),
    "cleanness": Measure(_cleanness, 0.8),
    "order": Measure(_order, 2.25),
    "steadiness": Measure(_steadiness, 0.015),
    "liveliness": Measure(_liveliness, 2.25),
    "colour": Measure(_colour, 0.5),
}


def _log_ratio(above: float, below: float, floor: float) -> float:
    return float(np.log(above + floor) - np.log(below + floor))


def _luma(clip: Clip) -> Plane:
    """Return luma, float32 (frames, height, width), reduced by a whole factor."""
    factor = max(1, -(-max(clip.shape[1:3]) // _MAX_SIDE))
    luma = np.asarray(clip, dtype=np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    height, width = (side // factor * factor for side in luma.shape[1:])
    blocks = luma[:, :height, :width].reshape(len(luma), height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(2, 4)), dtype=np.float32)


def _fine(luma: Plane) -> Plane:
    """Return detail of a few pixels: each frame minus its 3 x 3 mean, without borders."""
    padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = luma.shape[1:]
    mean = sum(padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9.0
    return np.asarray(luma - mean, dtype=np.float32)


def _detail_energy(fine: Plane) -> tuple[Plane, Plane]:
    """Return, by pair of frames and block, the mean energy of detail that the second frame repeats, and of the rest."""
    first, second = fine[:-1, 2:-2, 2:-2], fine[1:]
    height, width = first.shape[1:]
    best = np.full(_blocks(first).shape, np.inf, dtype=np.float32)
    for dy, dx in _SHIFTS:
        moved = second[:, 2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
        best = np.minimum(best, _blocks((first - moved) ** 2))
    lost = best / 2  # two independent details differ by twice the energy of one
    persisting = np.maximum(_blocks(first**2) - lost, 0.0)
    return persisting.mean(axis=(1, 2)), lost.mean(axis=(1, 2))


def _blocks(energy: Plane) -> Plane:
    """Return the means of blocks, (frames, rows, columns)."""
    frames, height, width = energy.shape
    rows, columns = max(1, height // _BLOCK), max(1, width // _BLOCK)
    size_y, size_x = min(_BLOCK, height), min(_BLOCK, width)
    cut = energy[:, : rows * size_y, : columns * size_x].reshape(frames, rows, size_y, columns, size_x)
    return np.asarray(cut.mean(axis=(2, 4)), dtype=np.float32)


def _flicker(luma: Plane) -> float:
    """Return the mean second difference of brightness and contrast over time, in grey levels."""
    if len(luma) < 3:
        return 0.0
    curves = np.stack([luma.mean(axis=(1, 2)), luma.std(axis=(1, 2))])
    return float(np.abs(np.diff(curves, n=2, axis=1)).mean())
