"""Stages of a task: a procedure names each with its prompt and how it is made; who looks at them stands behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from mora_launch.tasks.media import Clip

Make = Callable[[str, int], Clip]
ResultT = TypeVar("ResultT", str, Clip)


class Stages(Protocol):
    """Runs stages in the order in which the procedure asks for them."""

    def text(self, name: str, make: Callable[[], str]) -> str:
        """A stage that makes a prompt."""

    def frames(self, name: str, prompt: str, make: Make) -> tuple[Clip, str]:
        """A stage that makes a picture (H, W, 3) or clip, and the prompt it was made with in the end."""


class Unreviewed:
    """Every stage is taken as it comes.

    Args:
        on_stage: told each stage's name as it begins.
    """

    def __init__(self, seed: int, on_stage: Callable[[str], None] = lambda name: None) -> None:
        self._seed = seed
        self._on_stage = on_stage

    def text(self, name: str, make: Callable[[], str]) -> str:
        """As `make` gives it."""
        self._on_stage(name)
        return make()

    def frames(self, name: str, prompt: str, make: Make) -> tuple[Clip, str]:
        """Made once."""
        self._on_stage(name)
        return make(prompt, stage_seed(self._seed, name, 0)), prompt


def stage_seed(seed: int, stage: str, attempt: int) -> int:
    """Seed of one attempt at one stage, 0 to 2^31 - 1: a pure function, so that a repeated run draws the same."""
    if attempt == 0 and stage == "image":
        return seed  # so that a picture made alone and a video's first frame are the same
    digest = hashlib.sha256(f"{seed}/{stage}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
