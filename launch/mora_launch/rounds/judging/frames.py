"""The frames of a candidate to show to a model: evenly spread over time, never enlarged."""

from __future__ import annotations

import numpy as np
from mora_data.reading.fitting import Clip
from PIL import Image


def shown_frames(clip: Clip, number: int, height: int) -> list[Image.Image]:
    """Return `number` frames, or all if there are fewer; the first and the last are included."""
    chosen = np.linspace(0, len(clip) - 1, min(number, len(clip))).round().astype(int)
    return [_fitted(Image.fromarray(clip[index]), height) for index in chosen]


def _fitted(image: Image.Image, height: int) -> Image.Image:
    if image.height <= height:
        return image
    return image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.BICUBIC)
