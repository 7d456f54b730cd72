"""The properties read from a clip's pixels are those of its prompt, and absent properties are not reported."""

from __future__ import annotations

import numpy as np
from mora_data.moving_shapes import GROUND, MovingShape, all_shapes
from mora_data.seen_shapes import Sight, agreement, clip_agreement, look
from mora_data.settings import ClipShape

SHAPE = ClipShape(num_frames=5, height=32, width=32)
RED = MovingShape("red", "circle", "left", "quickly")


def test_colour_direction_and_speed_of_every_made_clip_are_read_despite_noise_and_offset() -> None:
    draw = np.random.default_rng(0)
    for made in all_shapes():
        clip = made.clip(SHAPE, (1.0, -1.0)).astype(float) + draw.normal(0, 12, (5, 32, 32, 3))
        seen = look(clip.clip(0, 255).astype(np.uint8))
        assert seen == Sight(made.colour, made.direction, made.direction, made.speed)


def test_a_clip_agrees_with_its_own_prompt_and_with_no_word_of_the_opposite() -> None:
    for made in all_shapes():
        assert set(clip_agreement(made, made.clip(SHAPE)).values()) == {1.0}
    other = MovingShape("blue", "circle", "right", "slowly")
    assert set(clip_agreement(other, RED.clip(SHAPE)).values()) == {0.0}
    assert set(clip_agreement(MovingShape("red", "circle", "left"), RED.clip(SHAPE))) == {
        "colour",
        "begins",
        "direction",
    }


def test_an_empty_clip_shows_nothing() -> None:
    empty = np.full((5, 32, 32, 3), GROUND, dtype=np.uint8)
    assert look(empty) == Sight(None, None, None, None)
    assert set(agreement(RED, empty[0], empty).values()) == {0.0}


def test_a_shape_that_stays_has_no_motion() -> None:
    clip = np.repeat(RED.clip(SHAPE)[:1], 5, axis=0)
    assert look(clip) == Sight("red", "left", None, None)


def test_a_shape_that_vanishes_has_no_direction() -> None:
    clip = RED.clip(SHAPE)
    clip[-1] = GROUND
    assert look(clip).direction is None


def test_agreement_names_what_differs() -> None:
    other = MovingShape("red", "square", "right", "quickly").clip(SHAPE)
    found = agreement(RED, RED.clip(SHAPE)[0], other)
    assert found == {
        "image_colour": 1.0, "image_place": 1.0, "video_colour": 1.0, "direction": 0.0, "speed": 1.0, "all": 0.0,
    }  # fmt: skip
