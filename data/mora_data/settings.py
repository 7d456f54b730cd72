"""Where clips come from and which shape they have. Part of a job's configuration."""

from __future__ import annotations

from typing import Annotated, Any

from mora_runtime.schema import PositiveInt, Settings
from pydantic import BeforeValidator


class ClipShape(Settings):
    """Frames and size of a training clip, in pixels."""

    num_frames: PositiveInt
    height: PositiveInt
    width: PositiveInt
    fps: float = 24.0  # of the videos that are written


class DataSettings(Settings):
    """Where training clips come from."""

    path: str | None = None  # JSON lines with prompt and video, or one video; None = clips that Mora makes itself
    fps: float | None = None  # frames are taken at this rate; None = the video's own
    num_clips: PositiveInt = 8  # from one video, or made
    with_speed: bool = False  # made clips move slowly or quickly, and their prompts say so
    shuffle: bool = True


def _path_or_section(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


DataSection = Annotated[DataSettings, BeforeValidator(_path_or_section)]
