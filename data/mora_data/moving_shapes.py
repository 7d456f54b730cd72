"""Clips of one shape that moves over a plain background, with prompts that describe them. Numpy only, no torch.

`mora train` uses them when it has no data, the shapes models are pre-trained on them (`configs/shapes.yaml`), and
`mora bench learn` measures against them: everything that a prompt names can be recovered from the pixels
(`seen_shapes`).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mora_data.settings import ClipShape

GROUND = 24  # grey level
COLOURS = {"red": (220, 50, 40), "green": (60, 190, 80), "blue": (60, 90, 220), "yellow": (235, 205, 60)}
FORMS = ("circle", "square")
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
SPEEDS = {"slowly": 0.25, "quickly": 0.55}  # path of a clip, as a share of the picture's side
_UNNAMED_PATH = 0.6  # if the prompt names no speed
_PROMPT = re.compile(
    rf"\ba (?P<colour>{'|'.join(COLOURS)}) (?P<form>{'|'.join(FORMS)}) moves"
    rf"(?: (?P<speed>{'|'.join(SPEEDS)}))? (?P<direction>{'|'.join(DIRECTIONS)})\b"
)


@dataclass(frozen=True)
class MovingShape:
    """One shape and its motion; with `speed` None the prompt names no speed."""

    colour: str
    form: str
    direction: str
    speed: str | None = None

    @property
    def prompt(self) -> str:
        """The clip's description in words."""
        manner = "" if self.speed is None else f" {self.speed}"
        return f"a {self.colour} {self.form} moves{manner} {self.direction}"

    @classmethod
    def of_prompt(cls, prompt: str) -> MovingShape | None:
        """Return the shape that a prompt describes in these words; None if it describes another thing."""
        found = _PROMPT.search(" ".join(prompt.lower().split()))
        return None if found is None else cls(*found.group("colour", "form", "direction", "speed"))

    def clip(self, shape: ClipShape, offset: tuple[float, float] = (0.0, 0.0)) -> npt.NDArray[np.uint8]:
        """Draw uint8 (frames, height, width, 3); the path's middle is the picture's centre plus `offset` pixels."""
        clip = np.full((shape.num_frames, shape.height, shape.width, 3), GROUND, dtype=np.uint8)
        rows, columns = np.mgrid[0 : shape.height, 0 : shape.width]
        radius = min(shape.height, shape.width) / 6
        step_x, step_y = DIRECTIONS[self.direction]
        path = _UNNAMED_PATH if self.speed is None else SPEEDS[self.speed]
        for number in range(shape.num_frames):
            progress = number / max(1, shape.num_frames - 1) - 0.5  # from -0.5 to 0.5 of the path
            x = shape.width / 2 + offset[0] + step_x * progress * shape.width * path
            y = shape.height / 2 + offset[1] + step_y * progress * shape.height * path
            if self.form == "circle":
                inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
            else:
                inside = (abs(columns - x) <= radius) & (abs(rows - y) <= radius)
            clip[number][inside] = COLOURS[self.colour]
        return clip


def made_clip(index: int, shape: ClipShape, *, with_speed: bool = False) -> tuple[str, npt.NDArray[np.uint8]]:
    """Built-in clip number `index` and its prompt: 32 different ones, or 48 that name a speed and are not held out."""
    made = _with_speed(index) if with_speed else _without_speed(index)
    return made.prompt, made.clip(shape)


def _without_speed(index: int) -> MovingShape:
    combinations = list(itertools.product(DIRECTIONS, FORMS, COLOURS))
    direction, form, colour = combinations[(index * 7) % len(combinations)]
    return MovingShape(colour, form, direction)


def _with_speed(index: int) -> MovingShape:
    shown = trained_shapes()
    return shown[(index * 7) % len(shown)]


def all_shapes() -> list[MovingShape]:
    """All 64 combinations of colour, form, direction and speed."""
    return [MovingShape(*named) for named in itertools.product(COLOURS, FORMS, DIRECTIONS, SPEEDS)]


def trained_shapes() -> list[MovingShape]:
    """The 48 combinations that training may use."""
    return [shape for shape in all_shapes() if not is_held_out(shape)]


def is_held_out(shape: MovingShape) -> bool:
    """True for the 16 of the 64 combinations that training must not use; every value is as frequent as in all 64."""
    assert shape.speed is not None
    indices = (list(COLOURS).index(shape.colour), FORMS.index(shape.form), list(DIRECTIONS).index(shape.direction))
    return (sum(indices) + 2 * list(SPEEDS).index(shape.speed)) % 4 == 0
