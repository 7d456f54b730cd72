"""Made clips agree with their prompts, and a quarter of the combinations is held out of training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from mora_data.moving_shapes import COLOURS, GROUND, MovingShape, all_shapes, is_held_out, made_clip
from mora_data.settings import ClipShape

SHAPE = ClipShape(num_frames=5, height=32, width=32)


def centre(frame: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero((frame != GROUND).any(axis=-1))
    return np.array([columns.mean(), rows.mean()])


def test_a_clip_shows_its_colour_direction_and_speed() -> None:
    for shape in all_shapes():
        clip = shape.clip(SHAPE)
        seen = clip[(clip != GROUND).any(axis=-1)]
        assert (seen == COLOURS[shape.colour]).all()
        way = centre(clip[-1]) - centre(clip[0])
        along = {"right": way[0], "left": -way[0], "down": way[1], "up": -way[1]}[shape.direction]
        expected = 8.0 if shape.speed == "slowly" else 17.6
        assert abs(along - expected) < 1.0
        assert abs(way).min() < 0.5, "and not aside"


def test_an_offset_moves_the_whole_path() -> None:
    shape = MovingShape("red", "square", "left", "slowly")
    moved = centre(shape.clip(SHAPE, (2.0, -3.0))[2]) - centre(shape.clip(SHAPE)[2])
    assert np.allclose(moved, [2.0, -3.0])


def test_prompts_name_the_speed_only_if_the_clip_has_one() -> None:
    assert MovingShape("red", "circle", "up", "quickly").prompt == "a red circle moves quickly up"
    assert made_clip(0, SHAPE)[0] == "a red circle moves right"


def test_made_clips_with_speed_are_exactly_those_not_held_out() -> None:
    prompts = {made_clip(index, SHAPE, with_speed=True)[0] for index in range(48)}
    assert prompts == {shape.prompt for shape in all_shapes() if not is_held_out(shape)}


def test_held_out_combinations_are_a_quarter_with_every_value_equally_often() -> None:
    held_out = [shape for shape in all_shapes() if is_held_out(shape)]
    assert len(held_out) == 16
    assert set(Counter(shape.colour for shape in held_out).values()) == {4}
    assert set(Counter(shape.direction for shape in held_out).values()) == {4}
    assert set(Counter(shape.form for shape in held_out).values()) == {8}
    assert set(Counter(shape.speed for shape in held_out).values()) == {8}


@pytest.mark.parametrize("made", [*all_shapes(), MovingShape("red", "circle", "left")])
def test_a_prompt_tells_its_shape(made: MovingShape) -> None:
    assert MovingShape.of_prompt(made.prompt) == made
    assert MovingShape.of_prompt(f"  {made.prompt.capitalize()}. The scene is clearly lit.") == made


@pytest.mark.parametrize(
    "prompt", ["", "a red cat moves left", "a red circle", "a circle moves left", "red circle moves left"]
)
def test_a_prompt_of_something_else_tells_none(prompt: str) -> None:
    assert MovingShape.of_prompt(prompt) is None
