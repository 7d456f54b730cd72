"""Results and outcomes, made without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mora_launch.evaluation.measuring.plan import Measured
from mora_launch.evaluation.measuring.result import Key, Result
from mora_launch.evaluation.output.summary import Outcome
from mora_launch.evaluation.suite.dimensions import QUALITY
from mora_launch.evaluation.suite.sources import Sources
from mora_launch.evaluation.suite.video_file import VideoFile


def result(file: str, dimension: str, score: float | None, **more: Any) -> Result:
    """A result of a video whose hash is its name."""
    key = Key(sha256=file, dimension=dimension, version="1", settings="s")
    refused = "" if score is not None else "too small"
    about = {"num_frames": 8, "height": 128, "width": 160, "fps": 8.0, **more}
    return Result(file, key, "metric", {}, score=score, refused=refused, **about)


def outcome(scores: dict[str, dict[str, float | None]], **more: Any) -> Outcome:
    """An outcome with the scores of each video by dimension; the group of a video is what is before its `-`."""
    dimensions = tuple(dict.fromkeys(name for each in scores.values() for name in each)) or QUALITY
    groups = more.pop("has_groups", False)
    videos = tuple(
        VideoFile(Path(f"{name}.mp4"), name, group=name.partition("-")[0] if groups else "") for name in scores
    )
    results = {
        (video, name): result(video, name, score) for video, own in scores.items() for name, score in own.items()
    }
    measured = [Measured(name, "metric", "1", {}, {}) for name in dimensions]
    sources = Sources(videos, "custom", {})
    return Outcome("model", "quality", dimensions, sources, measured=measured, results=results, **more)
