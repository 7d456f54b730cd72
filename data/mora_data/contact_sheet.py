"""Draws clips as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from mora_data.reading.fitting import Clip


def contact_sheet(rows: Sequence[tuple[str, Clip]], *, columns: int = 6, cell_height: int = 96) -> Image.Image:
    """Draw several clips as one picture: a labelled row for each, with frames spread evenly over time."""
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
