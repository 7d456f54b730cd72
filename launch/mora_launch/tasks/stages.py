"""Stages of a task: a procedure declares each one; the `Stages` implementation decides whether a person reviews it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from mora_data.reading.fitting import Clip

Make = Callable[[str, int], Clip]
ResultT = TypeVar("ResultT", str, Clip)


class Stages(Protocol):
    """Runs stages in the order in which the procedure declares them."""

    def text(self, name: str, make: Callable[[], str]) -> str:
        """Run a stage that makes a prompt; return the prompt."""

    def frames(self, name: str, prompt: str, make: Make) -> tuple[Clip, str]:
        """Run a stage that makes a picture (H, W, 3) or clip; return it and the prompt that finally made it."""


class Unreviewed:
    """Accepts the first result of every stage.

    Args:
        on_stage: called with the name of each stage as it begins.
        on_result: called with the name of each stage and what it made.
    """

    def __init__(
        self, seed: int, on_stage: Callable[[str], None] = lambda name: None,
        on_result: Callable[[str, Clip | str], None] = lambda name, made: None,
    ) -> None:  # fmt: skip
        self._seed = seed
        self._on_stage = on_stage
        self._on_result = on_result

    def text(self, name: str, make: Callable[[], str]) -> str:
        """Return the text of `make`."""
        self._on_stage(name)
        made = make()
        self._on_result(name, made)
        return made

    def frames(self, name: str, prompt: str, make: Make) -> tuple[Clip, str]:
        """Make the frames once, with the stage's first seed."""
        self._on_stage(name)
        made = make(prompt, stage_seed(self._seed, name, 0))
        self._on_result(name, made)
        return made, prompt


def stage_seed(seed: int, stage: str, attempt: int) -> int:
    """Return the seed of one attempt at one stage, 0 to 2^31 - 1: a pure function, so that runs can be repeated."""
    if attempt == 0 and stage == "image":
        return seed  # so that a picture and the first frame of a video of the same seed are equal
    digest = hashlib.sha256(f"{seed}/{stage}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
