"""Small clips on disk, and a process group of one member, for the trainer's tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from mora_data.moving_shapes import made_clip
from mora_data.settings import ClipShape
from mora_data.video_writer import write_video
from mora_training.process_group import join_group
from mora_training.training_settings import GroupSettings

SHAPE = ClipShape(num_frames=9, height=32, width=48, fps=8)


@pytest.fixture
def shape() -> ClipShape:
    return SHAPE


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, made_clip(0, SHAPE)[1], SHAPE.fps)
    return path


@pytest.fixture(scope="session")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GroupSettings]:
    """The group of which this process is the only member; DeepSpeed joins one once in the life of a process."""
    settings = GroupSettings(rank=0, world_size=1, rendezvous=f"file://{tmp_path_factory.mktemp('group') / 'file'}")
    with mock.patch.dict(os.environ):  # joining sets variables
        join_group(settings, torch.device("cpu"))
        yield settings
        dist.destroy_process_group()
