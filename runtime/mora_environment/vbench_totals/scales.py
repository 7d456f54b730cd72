"""How VBench normalises its dimensions, and how much each weighs in the scores of both suites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
PICTURE: Mapping[str, Scale] = {  # of the image-to-video suite: the video compared with its first picture
    "camera_motion": Scale(0.0, 1.0, weight=0.1),
    "i2v_subject": Scale(0.1462, 1.0),
    "i2v_background": Scale(0.2615, 1.0),
}
PICTURE_QUALITY: Mapping[str, Scale] = {name: scale for name, scale in QUALITY.items() if name != "temporal_flickering"}
