"""Writes the frames of samples as pictures, as a player shows them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from PIL import Image

from mora_data.clips import open_video
from mora_data.reading.fitting import Clip
from mora_data.sample import Sample

MAX_NUM_FRAMES = 300  # of a sample
_COMPRESSION = 1


def write_frames(sample: Sample, folder: Path) -> None:
    """Write `folder/LINE/0.png, 1.png, ...` from the sample's start on, and their times in seconds in `times.json`.

    Raises:
        DatasetError: the video cannot be read.
    """
    target = folder / str(sample.line)
    times_s = []
    with open_video(sample.video) as video:
        for number, frame in enumerate(itertools.islice(video.frames(sample.start_s), MAX_NUM_FRAMES)):
            target.mkdir(parents=True, exist_ok=True)
            _write(target / f"{number}.png", frame.pixels())
            times_s.append(round(frame.time_s, 6))
    if times_s:
        (target / "times.json").write_text(json.dumps(times_s) + "\n", encoding="utf-8")


def write_picture(picture: Clip, folder: Path) -> None:
    """Write a picture as the only frame of line 1."""
    target = folder / "1"
    target.mkdir(parents=True, exist_ok=True)
    _write(target / "0.png", picture)
    (target / "times.json").write_text("[0.0]\n", encoding="utf-8")


def _write(file: Path, pixels: Clip) -> None:
    Image.fromarray(pixels).save(file, "PNG", compress_level=_COMPRESSION)
