"""A video to measure, and what is known about it besides its frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VIDEOS = "videos"  # folder of generated videos, in the output of an evaluation
SUFFIXES = (".mp4", ".gif", ".webm", ".mkv", ".mov", ".avi", ".webp")


@dataclass(frozen=True)
class VideoFile:
    """One video.

    Attributes:
        name: as results and reports show it: relative to its source.
        prompt: that it was made for; None if it is not known.
        words: of its style; None if they are not known.
        dimensions: for which it counts; None = all that are asked for.
        inputs: videos that it was made from, in the order of time; empty if they are not known.
        group: label of the step of training that made it; empty outside of runs.
    """

    path: Path
    name: str
    prompt: str | None = None
    words: str | None = None
    dimensions: tuple[str, ...] | None = None
    inputs: tuple[VideoFile, ...] = ()
    group: str = ""

    def counts_for(self, dimension: str) -> bool:
        """Whether the video is one of the dimension's."""
        return self.dimensions is None or dimension in self.dimensions
