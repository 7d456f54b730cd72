"""One training sample, and where it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mora_data.clips import read_clip
from mora_data.reading.fitting import Clip
from mora_data.settings import ClipShape


@dataclass(frozen=True)
class Sample:
    """A prompt and the place of its target clip."""

    prompt: str
    video: Path
    start_s: float = 0.0
    fps: float | None = None
    seeds: Mapping[str, int] = field(default_factory=dict)  # by agent, of what it made on the way to the target
    where: str = field(default="", compare=False)  # file and line that name it, for errors
    line: int = field(default=1, compare=False)  # of the file that names it, or the number in a folder
    named: str = field(default="", compare=False)  # the video as the data set names it

    def clip(self, shape: ClipShape) -> Clip:
        """Decode the target clip: uint8 (frames, height, width, 3)."""
        return read_clip(self.video, shape, start_s=self.start_s, fps=self.fps)
