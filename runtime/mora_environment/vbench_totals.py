"""Totals over the dimensions of VBench: the paper's video quality, and VBench's scores for both of its suites.

`overall` maps a dimension to its overall value, on the scale that a metric's `score` has. The functions need no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mora_runtime.errors import BadArgument

# The paper's video quality is the plain mean of these six.
PAPER_QUALITY = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)


@dataclass(frozen=True)
class Scale:
    """How VBench normalises a dimension, and how much the dimension weighs among those of its group."""

    least: float
    most: float
    weight: float = 1.0

    def normalised(self, value: float) -> float:
        return (value - self.least) / (self.most - self.least)


QUALITY: Mapping[str, Scale] = {
    "subject_consistency": Scale(0.1462, 1.0),
    "background_consistency": Scale(0.2615, 1.0),
    "temporal_flickering": Scale(0.6293, 1.0),
    "motion_smoothness": Scale(0.706, 0.9975),
    "dynamic_degree": Scale(0.0, 1.0, weight=0.5),
    "aesthetic_quality": Scale(0.0, 1.0),
    "imaging_quality": Scale(0.0, 1.0),
}
SEMANTIC: Mapping[str, Scale] = {
    "object_class": Scale(0.0, 1.0),
    "multiple_objects": Scale(0.0, 1.0),
    "human_action": Scale(0.0, 1.0),
    "color": Scale(0.0, 1.0),
    "spatial_relationship": Scale(0.0, 1.0),
    "scene": Scale(0.0, 0.8222),
    "appearance_style": Scale(0.0009, 0.2855),
    "temporal_style": Scale(0.0, 0.364),
    "overall_consistency": Scale(0.0, 0.364),
}
IMAGE: Mapping[str, Scale] = {  # of the image-to-video suite: the video compared with its first picture
    "camera_motion": Scale(0.0, 1.0, weight=0.1),
    "i2v_subject": Scale(0.1462, 1.0),
    "i2v_background": Scale(0.2615, 1.0),
}
IMAGE_QUALITY: Mapping[str, Scale] = {name: scale for name, scale in QUALITY.items() if name != "temporal_flickering"}
_SHARES = (4.0, 1.0)  # of quality and semantic in the total
_IMAGE_SHARES = (1.0, 1.0)  # of quality and image in the total of the image-to-video suite


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
    return _totals(overall, IMAGE_QUALITY, IMAGE, _IMAGE_SHARES)


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
