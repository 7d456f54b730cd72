"""A sheet of frames that shows a whole video in one picture."""

from __future__ import annotations

import math

import numpy as np
from mora_data.reading.fitting import Clip

NUM_COLUMNS = 4
MAX_NUM_FRAMES = 16
MAX_SIDE = 160  # of a frame in the sheet


def cell_size(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of a frame in the sheet: its longer side has at most `MAX_SIDE` pixels."""
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def frame_sheet(frames: Clip) -> Clip:
    """Return frames, uint8 (frames, height, width, 3), as one picture.

    At most `MAX_NUM_FRAMES` evenly spaced ones, the first and the last among them, are in rows of `NUM_COLUMNS`, from
    left to right and from top to bottom. What is left of the last row is black.
    """
    num_shown = min(len(frames), MAX_NUM_FRAMES)
    shown = frames[np.linspace(0, len(frames) - 1, num_shown).round().astype(int)]
    num_rows = math.ceil(num_shown / NUM_COLUMNS)
    cells = np.zeros((num_rows * NUM_COLUMNS, *frames.shape[1:]), dtype=np.uint8)
    cells[:num_shown] = shown
    _, height, width, _ = frames.shape
    grid = cells.reshape(num_rows, NUM_COLUMNS, height, width, 3).swapaxes(1, 2)
    return grid.reshape(num_rows * height, NUM_COLUMNS * width, 3)
