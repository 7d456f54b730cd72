"""Reads from the pixels of a clip what its moving shape does: the counterpart of `mora_data.moving_shapes`.

So no judge is needed to say whether a generated clip agrees with its prompt. Form is left out, because a circle and a
square of ten pixels, smeared by a tiny model, cannot be told apart reliably.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mora_data.moving_shapes import COLOURS, DIRECTIONS, GROUND, SPEEDS, MovingShape

_CONTRAST = 60  # grey levels: a pixel this much brighter than the ground belongs to the shape
_LEAST_AREA = 0.02  # share of the picture; less is no shape. A whole shape has 0.09
_LEAST_WAY = 0.1  # share of the picture's side; less is no motion. A slow motion has 0.25
_LEAST_DISTANCE = 0.04  # from the centre, as a share of the side; less is no direction. A slow motion begins at 0.125
_PALETTE = np.array(list(COLOURS.values()), dtype=float)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sight:
    """What a clip shows; None where the pixels do not tell."""

    colour: str | None
    begins: str | None  # direction of a motion that begins where the shape is in the first frame
    direction: str | None
    speed: str | None


def look(clip: Pixels) -> Sight:
    """Look at a clip, uint8 (frames, height, width, 3); a single frame shows only colour and place."""
    centres = [_centre(frame) for frame in clip]
    first, last = centres[0], centres[-1]
    begins = None if first is None else _direction(np.array([0.5, 0.5]) - first, _LEAST_DISTANCE)
    if first is None or last is None or len(clip) == 1:
        return Sight(_colour(clip), begins, None, None)
    way = last - first
    return Sight(_colour(clip), begins, _direction(way, _LEAST_WAY), _speed(float(np.abs(way).max())))


def agreement(prompt: MovingShape, picture: Pixels, clip: Pixels) -> dict[str, float]:
    """1 (agrees) or 0 for each property that can be compared.

    Args:
        picture: from the image agent, uint8 (height, width, 3).
        clip: what the video agent made from it.
    """
    still, moving = look(picture[None]), look(clip)
    found = {
        "image_colour": still.colour == prompt.colour,
        "image_place": still.begins == prompt.direction,
        "video_colour": moving.colour == prompt.colour,
        "direction": moving.direction == prompt.direction,
        "speed": moving.speed == prompt.speed,
    }
    found["all"] = all(found[name] for name in ("video_colour", "direction", "speed"))
    return {name: float(value) for name, value in found.items()}


def clip_agreement(prompt: MovingShape, clip: Pixels) -> dict[str, float]:
    """1 (agrees) or 0 for what a clip shows of its prompt: colour, place of its beginning, direction, and speed.

    The speed is left out if the prompt names none.
    """
    seen = look(clip)
    found = {
        "colour": seen.colour == prompt.colour,
        "begins": seen.begins == prompt.direction,
        "direction": seen.direction == prompt.direction,
    }
    if prompt.speed is not None:
        found["speed"] = seen.speed == prompt.speed
    return {name: float(value) for name, value in found.items()}


def _inside(frames: Pixels) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(frames.astype(int) - GROUND).max(axis=-1) > _CONTRAST)


def _centre(frame: Pixels) -> npt.NDArray[np.float64] | None:
    """(x, y) of the shape as shares of the picture's sides."""
    inside = _inside(frame)
    if inside.mean() < _LEAST_AREA:
        return None
    rows, columns = np.nonzero(inside)
    return np.array([columns.mean() / frame.shape[1], rows.mean() / frame.shape[0]])


def _colour(clip: Pixels) -> str | None:
    inside = _inside(clip)
    if inside.mean() < _LEAST_AREA:
        return None
    seen = np.median(clip[inside].astype(float), axis=0)
    return list(COLOURS)[int(((_PALETTE - seen) ** 2).sum(axis=1).argmin())]


def _direction(way: npt.NDArray[np.float64], least: float) -> str | None:
    if np.abs(way).max() < least:
        return None
    return max(DIRECTIONS, key=lambda name: float(np.dot(DIRECTIONS[name], way)))


def _speed(way: float) -> str | None:
    if way < _LEAST_WAY:
        return None
    return min(SPEEDS, key=lambda name: abs(SPEEDS[name] - way))
