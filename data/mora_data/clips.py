"""Training clips, decoded from videos to a fixed number of frames and size. Needs no torch.

A clip is uint8 (frames, height, width, 3), RGB. The launcher checks a data set with this before it starts anything; the
coordinator loads the data set.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mora_runtime.errors import DatasetError
from mora_runtime.files.foreign_file import open_foreign

from mora_data.reading.fitting import Clip
from mora_data.reading.opening import Moving, opened_video
from mora_data.reading.timeline import on_grid
from mora_data.reading.unreadable import Unreadable
from mora_data.settings import ClipShape

_MAX_PATH_LENGTH = 4096


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[Moving]:
    """Open a video: a context manager.

    Raises:
        DatasetError: not a regular file, or not a video that can be read; also if decoding fails inside the block.
    """
    try:
        if len(str(path)) > _MAX_PATH_LENGTH:
            raise OSError(f"expected a path of at most {_MAX_PATH_LENGTH} characters")
        with open(open_foreign(path), "rb") as file, opened_video(file) as video:
            yield video
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read as a video: {error.strerror or error}") from None
    except Unreadable as error:
        raise DatasetError(f"{path}: {error}") from None


def read_clip(path: Path, shape: ClipShape, *, start_s: float = 0.0, fps: float | None = None) -> Clip:
    """Decode `shape.num_frames` frames from `start_s` on, scaled to cover `shape` and cropped around the centre.

    Args:
        fps: rate at which frames are taken (for each time the frame on screen); None takes every frame.

    Raises:
        DatasetError: the file cannot be opened or decoded, or has too few frames.
    """
    size = (shape.height, shape.width)
    with open_video(path) as video:
        shown = video.frames(start_s)
        if fps is not None:
            shown = on_grid(shown, start_s, fps)
        frames = [frame.pixels(size) for frame in itertools.islice(shown, shape.num_frames)]
    if len(frames) < shape.num_frames:
        fault = f" ({video.fault})" if video.fault else ""
        raise DatasetError(
            f"{path}: expected {shape.num_frames} frames from {start_s:.2f} s on, got {len(frames)}{fault}; "
            "use a longer video, a higher fps, or fewer frames"
        )
    return np.stack(frames)


def duration_s(path: Path) -> float:
    """Length of a video in seconds. Raises: DatasetError: it cannot be read."""
    with open_video(path) as video:
        return video.duration_s
