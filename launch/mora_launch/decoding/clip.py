"""Decoded frames. A clip is uint8 (frames, height, width, 3), RGB; a picture is uint8 (height, width, 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Clip = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Video:
    """Decoded frames and their rate."""

    frames: Clip
    fps: float


def fitted(frames: Clip, height: int, width: int) -> Clip:
    """Scale frames to cover height x width and crop them around the centre; the right size is returned unchanged."""
    if frames.shape[1:3] == (height, width):
        return frames
    own_height, own_width = frames.shape[1:3]
    scale = max(height / own_height, width / own_width)
    crop_width, crop_height = width / scale, height / scale
    left, top = (own_width - crop_width) / 2, (own_height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    images = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=box) for frame in frames)
    return np.stack([np.asarray(image, dtype=np.uint8) for image in images])


def at_rate(video: Video, fps: float) -> Clip:
    """Return the video's frames at another rate: for each new time, the latest frame."""
    if abs(video.fps - fps) < 1e-6:
        return video.frames
    num_frames = max(1, round(len(video.frames) * fps / video.fps))
    indices = np.minimum((np.arange(num_frames) * video.fps / fps + 1e-9).astype(int), len(video.frames) - 1)
    frames: Clip = video.frames[indices]
    return frames
