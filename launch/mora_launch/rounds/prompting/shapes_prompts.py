"""Prompts of moving shapes, for the tiny models that draw them."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mora_data.moving_shapes import all_shapes, is_held_out


def shapes_prompts(seed: str, *, is_held_out_wanted: bool) -> Iterator[str]:
    """Each prompt once, in an order that depends on the seed: those that training may show, or the held-out ones."""
    wanted = [shape for shape in all_shapes() if is_held_out(shape) == is_held_out_wanted]
    random.Random(seed).shuffle(wanted)
    return (shape.prompt for shape in wanted)
