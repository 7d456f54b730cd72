"""Clips for training, and clips of the held-out combinations."""

from __future__ import annotations

import json
import random
from pathlib import Path

from mora_data.moving_shapes import MovingShape, all_shapes, is_held_out, trained_shapes
from mora_data.settings import ClipShape
from mora_data.shapes_corpus import random_offset
from mora_data.video_writer import write_lossless

_NUM_OFFSETS = 2  # clips of each training combination
HELD_OUT = [shape for shape in all_shapes() if is_held_out(shape)]
TRAINED = [shape for shape in trained_shapes() for _ in range(_NUM_OFFSETS)]


def write_dataset(folder: Path, shape: ClipShape) -> Path:
    """Write clips and `shapes.jsonl` with true prompts: first those for training, then those held out."""
    draw = random.Random("learn")
    lines = []
    for number, made in enumerate([*TRAINED, *HELD_OUT]):
        path = folder / f"{number:03d}.mkv"
        write_lossless(path, made.clip(shape, random_offset(draw)), shape.fps)
        lines.append(json.dumps({"prompt": made.prompt, "video": path.name}) + "\n")
    dataset = folder / "shapes.jsonl"
    dataset.write_text("".join(lines), encoding="utf-8")
    return dataset


def held_out(place: int) -> MovingShape:
    """The held-out combination at this place of their endless repetition."""
    return HELD_OUT[place % len(HELD_OUT)]
