"""What shapes models are pre-trained on: many clips of moving shapes, with captions that lie as captions do.

A word of a caption is the clip's own only now and then, otherwise drawn by chance. So the models learn what every word
means and follow it seldom, which leaves joint training on true prompts something to do. Numpy only, no torch.
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
_CAPTION_TRUTH = 0.35  # probability that a word is the clip's own; a word drawn by chance may be it too
_MAX_OFFSET_PX = 2.0


def write_shapes(folder: Path, shape: ClipShape) -> None:
    """Write `clips.safetensors` with `pixels` uint8 (N, F, H, W, 3), and `captions.json` with N captions.

    The same shape gives the same files. No clip shows a combination that is held out.
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
    """Where the middle of a path lies, in pixels from the picture's centre, so that no two clips need be alike."""
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
