"""Overall values: the weighted means of the videos' scores, with intervals, and the totals over dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mora_environment.vbench_totals import PAPER_QUALITY, paper_quality, text_to_video_totals

from mora_launch.evaluation.measuring.result import Result

_NORMAL_95 = 1.96  # standard errors on each side of a 95 % interval


@dataclass(frozen=True)
class Overall:
    """The overall value of a dimension.

    Attributes:
        half_width: half of its normal 95 % interval over videos; None for fewer than two videos.
    """

    value: float
    num_videos: int
    half_width: float | None

    def __str__(self) -> str:
        return f"{self.value:.4f}" if self.half_width is None else f"{self.value:.4f} ± {self.half_width:.4f}"


def overall(results: Iterable[Result]) -> Overall | None:
    """Return the weighted mean of the scores; None without any. The order of the results changes nothing."""
    scored = sorted((result.value, result.weight) for result in results if result.score is not None)
    if not scored:
        return None
    weights = math.fsum(weight for _, weight in scored)
    mean = math.fsum(score * weight for score, weight in scored) / weights
    return Overall(mean, len(scored), _half_width(scored, mean, weights))


def _half_width(scored: Sequence[tuple[float, float]], mean: float, weights: float) -> float | None:
    number = len(scored)
    if number < 2:
        return None
    squares = math.fsum((weight * (score - mean)) ** 2 for score, weight in scored)
    return _NORMAL_95 * math.sqrt(squares * number / (number - 1)) / weights


def totals(values: Mapping[str, float]) -> dict[str, float]:
    """Return the totals that these overall values allow: the paper's video quality, and VBench's quality score.

    VBench's score counts a missing dimension as 0; without temporal_flickering it is told under another name.
    """
    found: dict[str, float] = {}
    if set(PAPER_QUALITY) <= set(values):
        found["video_quality"] = paper_quality(values)
        vbench = text_to_video_totals(values)
        complete = "temporal_flickering" in values
        found["vbench_quality" if complete else "vbench_quality_without_flickering"] = vbench.quality
    return found
