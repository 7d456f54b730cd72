"""Measured quality of a clip: what numpy can say about it without a model. Honest, not clever.

All are computed on luma at most `_MAX_SIDE` pixels wide, all are higher for better, and none knows the prompt:

| measure | what it is |
|---|---|
| coherence | log of fine detail that the next frame shows again (small shifts allowed) over detail that it does not |
| detail | log of fine detail that persists: sharpness that noise cannot fake, because noise does not persist |
| steadiness | minus the change of overall brightness and contrast from frame to frame beyond its trend (flicker) |
| liveliness | share of frames that differ from the one before as much as this clip's frames usually do (not frozen) |
| colour | mean saturation, up to a bound: grey clips rank lower, garish ones not higher |
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from mora_trainer.clips import Clip

_MAX_SIDE = 160
_SHIFTS = tuple((dy, dx) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2))
_BLOCK = 8  # pixels; every block finds its own shift
_FLOOR = 0.05  # grey levels squared: below it detail is what rounding leaves
_STILL = 0.35  # mean absolute difference in grey levels below which two frames are the same one
_GARISH = 0.35

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measures:
    """Of one clip."""

    coherence: float
    detail: float
    steadiness: float
    liveliness: float
    colour: float

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def measure(clip: Clip) -> Measures:
    """All measures of a clip, uint8 (frames, height, width, 3), two frames or more."""
    luma = _luma(clip)
    persisting, lost = _detail_energy(luma)
    return Measures(
        coherence=float(np.log(persisting + _FLOOR) - np.log(lost + _FLOOR)),
        detail=float(np.log(persisting + _FLOOR)),
        steadiness=-_flicker(luma),
        liveliness=_liveliness(luma),
        colour=_colour(clip),
    )


def _luma(clip: Clip) -> Plane:
    """float32 (frames, height, width), reduced by a whole factor."""
    factor = max(1, -(-max(clip.shape[1:3]) // _MAX_SIDE))
    luma = np.asarray(clip, dtype=np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    height, width = (side // factor * factor for side in luma.shape[1:])
    blocks = luma[:, :height, :width].reshape(len(luma), height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(2, 4)), dtype=np.float32)


def _fine(luma: Plane) -> Plane:
    """Detail of a few pixels: each frame minus its 3 x 3 mean, borders cut."""
    padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = luma.shape[1:]
    mean = sum(padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9.0
    return np.asarray(luma - mean, dtype=np.float32)


def _detail_energy(luma: Plane) -> tuple[float, float]:
    """Mean energy of fine detail that the next frame shows again, and that it does not, by block-wise best shift."""
    fine = _fine(luma)
    first, second = fine[:-1, 2:-2, 2:-2], fine[1:]
    height, width = first.shape[1:]
    best = np.full(_blocks(first).shape, np.inf, dtype=np.float32)
    for dy, dx in _SHIFTS:
        moved = second[:, 2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]
        best = np.minimum(best, _blocks((first - moved) ** 2))
    total = _blocks(first**2)
    lost = best / 2  # two independent details differ by twice the energy of one
    return float(np.maximum(total - lost, 0.0).mean()), float(lost.mean())


def _blocks(energy: Plane) -> Plane:
    """Mean over blocks, (frames, rows, columns)."""
    frames, height, width = energy.shape
    rows, columns = max(1, height // _BLOCK), max(1, width // _BLOCK)
    size_y, size_x = min(_BLOCK, height), min(_BLOCK, width)
    cut = energy[:, : rows * size_y, : columns * size_x].reshape(frames, rows, size_y, columns, size_x)
    return np.asarray(cut.mean(axis=(2, 4)), dtype=np.float32)


def _flicker(luma: Plane) -> float:
    """Mean second difference of brightness and of contrast over time, in grey levels."""
    if len(luma) < 3:
        return 0.0
    curves = np.stack([luma.mean(axis=(1, 2)), luma.std(axis=(1, 2))])
    return float(np.abs(np.diff(curves, n=2, axis=1)).mean())


def _liveliness(luma: Plane) -> float:
    change = np.abs(np.diff(luma, axis=0)).mean(axis=(1, 2))
    threshold = max(_STILL, 0.1 * float(np.quantile(change, 0.9)))
    return float((change > threshold).mean())


def _colour(clip: Clip) -> float:
    pixels = np.asarray(clip, dtype=np.float32)
    largest = pixels.max(axis=-1)
    saturation = (largest - pixels.min(axis=-1)) / np.maximum(largest, 1.0)
    return float(min(saturation.mean(), _GARISH))
