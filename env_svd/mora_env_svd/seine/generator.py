"""Serving: finished clips around given frames, one after the other. Plain torch, no transport.

A clip's bytes depend only on its prompt, seed, frames and settings: clips of one call never share a model call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from mora_env_svd.seine.pipeline import ClipPlan, GivenFramesPipeline

OnStep = Callable[[int, int], None]  # step done, number of steps of the whole call; raises to stop all of it
OnPart = Callable[[int, int, Tensor], None]
GivenUp = Callable[[], frozenset[int]]  # indices of cancelled clips


class _GivenUp(Exception):
    """The current clip was cancelled."""


class ClipGenerator:
    """Makes clips with one pipeline.

    Args:
        on_step: called after every model call with its number among those of the whole batch, and again, with the same
            number, before each piece of work of the autoencoder.
        given_up: asked at the same moments.
        on_part: called with the clip's index in the batch, the index of a frame, and decoded frames from there on,
            while later frames of the clip are not decoded yet.
    """

    def __init__(self, pipeline: GivenFramesPipeline, on_step: OnStep, given_up: GivenUp, on_part: OnPart) -> None:
        self._pipeline = pipeline
        self._on_step = on_step
        self._given_up = given_up
        self._on_part = on_part

    def generate(self, plans: Sequence[ClipPlan]) -> dict[int, Tensor]:
        """Clips uint8 (F, H, W, 3) by index in the batch, without clips cancelled meanwhile."""
        made: dict[int, Tensor] = {}
        for index, plan in enumerate(plans):
            try:
                made[index] = self._one(index, plan, len(plans))
            except _GivenUp:
                continue
        return made

    def _one(self, index: int, plan: ClipPlan, num_clips: int) -> Tensor:
        per_clip, num_frames = self._pipeline.settings.num_inference_steps, self._pipeline.size.frames
        num_done = index * per_clip

        def tell() -> None:
            self._on_step(num_done, num_clips * per_clip)
            if index in self._given_up():
                raise _GivenUp

        def on_step(number: int, latents: Tensor) -> None:
            nonlocal num_done
            num_done = index * per_clip + number + 1
            tell()

        def on_frames(start: int, frames: Tensor) -> None:
            if start + len(frames) < num_frames:
                self._on_part(index, start, frames)

        tell()
        return self._pipeline.sample(plan, before_piece=tell, on_step=on_step, on_frames=on_frames)
