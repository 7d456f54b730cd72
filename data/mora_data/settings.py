"""Settings of training clips: their source and shape. Part of a job's configuration."""

from __future__ import annotations

from typing import Annotated, Any

from mora_runtime.schema import PositiveInt, Settings
from pydantic import BeforeValidator


class ClipShape(Settings):
    """Frames and size of a training clip, in pixels."""

    num_frames: PositiveInt  # of one clip
    height: PositiveInt  # pixels
    width: PositiveInt  # pixels
    fps: float = 24.0  # of written videos


class DataSettings(Settings):
    """The source of training clips."""

    # A folder of videos with captions, a .jsonl, .csv or .tsv file, or one video; None = clips that Mora draws.
    path: str | None = None
    skip_bad: bool = False  # leave out samples that cannot be used, and say which
    fps: float | None = None  # frames are taken at this rate; None = the video's own
    num_clips: PositiveInt = 8  # cut from one video, or drawn
    with_speed: bool = False  # drawn shapes move slowly or quickly, and their prompts say so
    shuffle: bool = True  # a new order of samples in every epoch


def _path_or_section(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


DataSection = Annotated[DataSettings, BeforeValidator(_path_or_section)]
