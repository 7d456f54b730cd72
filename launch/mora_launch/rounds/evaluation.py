"""Measured quality of the videos for held-out prompts, before and after training, for a run and its reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mora_data.clips import read_clip
from mora_data.settings import ClipShape
from mora_trainer.candidate_settings import VIDEO_FILE

from mora_launch.rounds.judging.measured_judge import score
from mora_launch.rounds.judging.measures import measure

EVALUATION = "evaluation"


@dataclass(frozen=True)
class Figure:
    """The mean over the held-out prompts, with half the width of its normal 95 % interval (nan for one prompt)."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isnan(self.half_width) else f"{self.mean:.3f} ± {self.half_width:.3f}"


def evaluated_steps(run: Path) -> list[int]:
    """Return the steps whose model has made all its videos, in order."""
    folders = sorted((run / EVALUATION).glob("step-????????"))
    return [int(folder.name.removeprefix("step-")) for folder in folders if videos(run, int(folder.name[5:]))]


def videos(run: Path, step: int) -> list[Path]:
    """Return the videos for the held-out prompts after `step` steps, in the order of the prompts."""
    return sorted((run / EVALUATION / f"step-{step:08d}").glob(f"*/candidate-0/{VIDEO_FILE}"))


def figures(run: Path, step: int, shape: ClipShape) -> dict[str, Figure]:
    """Return every measure, and the measured judge's even score, over the held-out prompts."""
    found = [measure(read_clip(path, shape)) for path in videos(run, step)]
    columns = {name: [measures[name] for measures in found] for name in found[0]} if found else {}
    if found:
        columns["score"] = [score(measures, set()) for measures in found]
    return {name: _figure(values) for name, values in columns.items()}


def _figure(values: list[float]) -> Figure:
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Figure(float(np.mean(values)), half)
