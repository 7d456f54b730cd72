"""Small clips on disk for the trainer's tests."""

from pathlib import Path

import pytest
from mora_data.clips import write_video
from mora_data.moving_shapes import made_clip
from mora_data.settings import ClipShape

SHAPE = ClipShape(num_frames=9, height=32, width=48, fps=8)


@pytest.fixture
def shape() -> ClipShape:
    return SHAPE


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, made_clip(0, SHAPE)[1], SHAPE.fps)
    return path
