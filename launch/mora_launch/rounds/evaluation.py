"""Measured quality of the videos for held-out prompts, before and after training, for a run and its reports."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mora_data.clips import read_clip
from mora_data.moving_shapes import MovingShape
from mora_data.reading.fitting import Clip
from mora_data.seen_shapes import clip_agreement
from mora_data.settings import ClipShape
from mora_trainer.candidate_settings import RECORD_FILE, VIDEO_FILE

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


def prompt_of(video: Path) -> str:
    """Return the prompt of a video for held-out prompts."""
    return str(json.loads(video.with_name(RECORD_FILE).read_text(encoding="utf-8"))["prompt"])


def figures(run: Path, step: int, shape: ClipShape) -> dict[str, Figure]:
    """Return every measure, and the measured judge's even score, over the held-out prompts.

    Where all prompts describe moving shapes, also the share of the videos that agree with their prompt, by property.
    """
    made = videos(run, step)
    if not made:
        return {}
    clips = [read_clip(path, shape) for path in made]
    found = [measure(clip) for clip in clips]
    columns = {name: [measures[name] for measures in found] for name in found[0]}
    columns["score"] = [score(measures, set()) for measures in found]
    shapes = [MovingShape.of_prompt(prompt_of(path)) for path in made]
    return {name: _figure(values) for name, values in {**_agreement(shapes, clips), **columns}.items()}


def _agreement(shapes: list[MovingShape | None], clips: list[Clip]) -> dict[str, list[float]]:
    rows = [clip_agreement(shape, clip) for shape, clip in zip(shapes, clips, strict=True) if shape is not None]
    if len(rows) < len(clips) or len({tuple(row) for row in rows}) > 1:
        return {}
    columns = {f"agrees in {name}": [row[name] for row in rows] for name in rows[0]}
    return {**columns, "agrees in all": [float(all(row.values())) for row in rows]}


def _figure(values: list[float]) -> Figure:
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Figure(float(np.mean(values)), half)
