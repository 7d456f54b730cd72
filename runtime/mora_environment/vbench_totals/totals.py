"""The paper's video quality, and VBench's scores, computed from the overall values of dimensions.

`overall` maps a dimension to its overall value, on the scale that a metric's `score` has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mora_runtime.errors import BadArgument

from mora_environment.vbench_totals.scales import (
    PAPER_QUALITY,
    PICTURE,
    PICTURE_QUALITY,
    QUALITY,
    SEMANTIC,
    Scale,
)

_SHARES = (4.0, 1.0)  # of quality and semantic in the total
_PICTURE_SHARES = (1.0, 1.0)  # of quality and i2v in the total of the image-to-video suite


@dataclass(frozen=True)
class Totals:
    """The scores of a suite. `other` is VBench's semantic score, or its i2v score in the image-to-video suite.

    Attributes:
        missing: dimensions without an overall value, which VBench counts as 0 before it normalises.
    """

    quality: float
    other: float
    total: float
    missing: tuple[str, ...]


def paper_quality(overall: Mapping[str, float]) -> float:
    """The paper's video quality, the plain mean of six overall values.

    Raises:
        BadArgument: one of the six is missing.
    """
    missing = [name for name in PAPER_QUALITY if name not in overall]
    if missing:
        raise BadArgument(
            f"video quality: expected overall values of {len(PAPER_QUALITY)} dimensions, got none of "
            f"{', '.join(missing)}; evaluate these too"
        )
    return sum(overall[name] for name in PAPER_QUALITY) / len(PAPER_QUALITY)


def text_to_video_totals(overall: Mapping[str, float]) -> Totals:
    """VBench's quality, semantic and total score."""
    return _totals(overall, QUALITY, SEMANTIC, _SHARES)


def image_to_video_totals(overall: Mapping[str, float]) -> Totals:
    """Quality, i2v and total score of VBench's image-to-video suite."""
    return _totals(overall, PICTURE_QUALITY, PICTURE, _PICTURE_SHARES)


def _totals(
    overall: Mapping[str, float],
    quality: Mapping[str, Scale],
    other: Mapping[str, Scale],
    shares: tuple[float, float],
) -> Totals:
    first, second = _weighted_mean(overall, quality), _weighted_mean(overall, other)
    total = (shares[0] * first + shares[1] * second) / sum(shares)
    return Totals(first, second, total, tuple(name for name in (*quality, *other) if name not in overall))


def _weighted_mean(overall: Mapping[str, float], scales: Mapping[str, Scale]) -> float:
    weights = sum(scale.weight for scale in scales.values())
    return sum(scale.weight * scale.normalised(overall.get(name, 0.0)) for name, scale in scales.items()) / weights
