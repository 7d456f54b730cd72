"""A sample as `mora data check` tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FoundSample:
    """One line of a data set.

    Attributes:
        line: of the file that names it, from 1; of a folder, the number of the video by name.
        video: as the data set names it.
        width, height, fps, duration_s: as a player shows them; fps and duration_s of a picture are 0.
    """

    line: int
    video: str
    prompts: list[str]
    width: int
    height: int
    fps: float
    duration_s: float
