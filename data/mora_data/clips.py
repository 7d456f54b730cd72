"""Decoding videos to fixed-size clips, and writing videos. PyAV and numpy only, no torch.

A clip is uint8 (frames, height, width, 3), RGB. The launcher checks a dataset with this before it starts anything; the
coordinator loads the dataset and writes samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from mora_runtime.errors import DatasetError
from PIL import Image

from mora_data.settings import ClipShape
from mora_data.video_file import open_video

Clip = npt.NDArray[np.uint8]


def read_clip(path: Path, shape: ClipShape, *, start_s: float = 0.0, fps: float | None = None) -> Clip:
    """Decode `shape.num_frames` frames from `start_s` on, cover-resized and centre-cropped to `shape`.

    Args:
        fps: rate at which frames are taken (for each time the first frame at or after it); None takes every frame.

    Raises:
        DatasetError: the file cannot be opened or decoded, or has too few frames.
    """
    frames = list(itertools.islice(_frames(path, start_s, fps), shape.num_frames))
    if len(frames) < shape.num_frames:
        raise DatasetError(
            f"{path}: expected {shape.num_frames} frames from {start_s:.2f} s on, got {len(frames)}; "
            "use a longer video, a higher fps, or fewer frames"
        )
    return np.stack([_fit(frame, shape) for frame in frames])


def _frames(path: Path, start_s: float, fps: float | None) -> Iterator[Image.Image]:
    """Frames on the grid start_s, start_s + 1/fps, ...: for each grid time the first frame at or after it."""
    next_s = start_s
    with open_video(path) as (container, stream):
        for frame in container.decode(stream):
            time_s = frame.time or 0.0
            if time_s + 1e-6 < next_s:
                continue
            yield frame.to_image()  # type: ignore[no-untyped-call]
            next_s = next_s + 1.0 / fps if fps is not None else time_s


def duration_s(path: Path) -> float:
    """Length of a video in seconds, from its container, or by decoding if the container does not have it."""
    with open_video(path) as (container, stream):
        if container.duration is not None:
            return float(container.duration) / 1e6
        return max((frame.time or 0.0 for frame in container.decode(stream)), default=0.0)


def _fit(image: Image.Image, shape: ClipShape) -> Clip:
    scale = max(shape.width / image.width, shape.height / image.height)
    crop_width, crop_height = shape.width / scale, shape.height / scale
    left, top = (image.width - crop_width) / 2, (image.height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    return np.asarray(image.resize((shape.width, shape.height), Image.Resampling.BILINEAR, box=box), dtype=np.uint8)


def write_video(path: Path, clip: Clip, fps: float) -> None:
    """Write a clip as H.264 mp4, which players and browsers can open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"}
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def write_lossless(path: Path, clip: Clip, fps: float) -> None:
    """Write a clip as FFV1 in Matroska: decodes to the same bits; the same clip gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # bitexact: without it Matroska gives every file a random identity
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.options = {"threads": "1"}
        for number, pixels in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def contact_sheet(rows: list[tuple[str, Clip]], *, columns: int = 6, cell_height: int = 96) -> Image.Image:
    """Draw several clips as one picture: a labelled row for each, with frames spread evenly over time."""
    from PIL import ImageDraw

    label_height, gap = 16, 4
    columns = min(columns, max(len(clip) for _, clip in rows))
    width = max(_cell_width(clip, cell_height) for _, clip in rows) * columns + gap * (columns + 1)
    sheet = Image.new("RGB", (width, (cell_height + label_height + gap) * len(rows) + gap), (16, 16, 18))
    draw = ImageDraw.Draw(sheet)
    for row, (label, clip) in enumerate(rows):
        top = gap + row * (cell_height + label_height + gap)
        draw.text((gap, top + 2), label, fill=(230, 230, 230))
        for column, number in enumerate(evenly_spread(len(clip), columns)):
            cell_width = _cell_width(clip, cell_height)
            cell = Image.fromarray(clip[number]).resize((cell_width, cell_height), Image.Resampling.NEAREST)
            sheet.paste(cell, (gap + column * (cell_width + gap), top + label_height))
    return sheet


def evenly_spread(num_frames: int, most: int) -> npt.NDArray[np.int64]:
    """Numbers of at most so many frames of a clip, the first and the last among them."""
    return np.linspace(0, num_frames - 1, min(most, num_frames)).round().astype(np.int64)


def _cell_width(clip: Clip, cell_height: int) -> int:
    height, width = clip.shape[1:3]
    return round(int(width) * cell_height / int(height))
