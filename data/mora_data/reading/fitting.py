"""Resizes frames."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Clip = npt.NDArray[np.uint8]


def fitted(frames: Clip, height: int, width: int, shown: tuple[int, int] | None = None) -> Clip:
    """Scale frames (N, H, W, 3) to cover height x width and crop them around the centre.

    The right size is returned unchanged.

    Args:
        shown: (height, width) at which the frames are shown, if their pixels are not square.
    """
    own_height, own_width = frames.shape[1:3]
    shown_height, shown_width = shown or (own_height, own_width)
    if (own_height, own_width) == (shown_height, shown_width) == (height, width):
        return frames
    scale = max(height / shown_height, width / shown_width)
    crop_width = width / scale * own_width / shown_width
    crop_height = height / scale * own_height / shown_height
    left, top = (own_width - crop_width) / 2, (own_height - crop_height) / 2
    box = (max(0.0, left), max(0.0, top), min(own_width, left + crop_width), min(own_height, top + crop_height))
    images = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=box) for frame in frames)
    return np.stack([np.asarray(image, dtype=np.uint8) for image in images])
