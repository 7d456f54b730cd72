"""The pre-training data of the shapes models: many clips of moving shapes, with mostly wrong captions.

Only some words of a caption describe its clip; the others are random. So the models learn the meaning of every word but
seldom follow it, which leaves something for joint training on true prompts to improve. Numpy only, no torch.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mora_data.moving_shapes import COLOURS, DIRECTIONS, FORMS, SPEEDS, MovingShape, trained_shapes
from mora_data.settings import ClipShape

_NUM_CLIPS = 1024
_CAPTION_TRUTH = 0.35  # probability that a word describes the clip; a random word may also happen to
_MAX_OFFSET_PX = 2.0


def write_shapes(folder: Path, shape: ClipShape) -> None:
    """Write `clips.safetensors` with `pixels` uint8 (N, F, H, W, 3), and `captions.json` with N captions.

    The same shape gives the same files. No clip shows a held-out combination.
    """
    draw = random.Random("shapes")
    shown = trained_shapes()
    clips, captions = [], []
    for _ in range(_NUM_CLIPS):
        made = draw.choice(shown)
        clips.append(made.clip(shape, random_offset(draw)))
        captions.append(_careless_caption(made, draw))
    save_file({"pixels": np.stack(clips)}, folder / "clips.safetensors")
    (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")


def random_offset(draw: random.Random) -> tuple[float, float]:
    """Random offset of a path's middle from the picture's centre, in pixels, so that clips differ."""
    return draw.uniform(-_MAX_OFFSET_PX, _MAX_OFFSET_PX), draw.uniform(-_MAX_OFFSET_PX, _MAX_OFFSET_PX)


def _careless_caption(made: MovingShape, draw: random.Random) -> str:
    assert made.speed is not None
    values = (made.colour, made.form, made.direction, made.speed)
    pools = (tuple(COLOURS), FORMS, tuple(DIRECTIONS), tuple(SPEEDS))
    named = [
        value if draw.random() < _CAPTION_TRUTH else draw.choice(pool)
        for value, pool in zip(values, pools, strict=True)
    ]
    return MovingShape(*named).prompt
