"""Serving: finished clips around given frames, one after the other. Plain torch, no transport.

A clip's bytes depend only on its prompt, seed, frames and settings: clips of one call never share a model call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mora_env_opensora.models import InputError
from mora_env_opensora.pipelines import GivenFramesPipeline
from mora_env_opensora.pipelines.pixels import frames_to_pixels

OnStep = Callable[[int, int], None]  # step done, number of steps of the whole call; raises to stop all of it
OnPart = Callable[[int, int, Tensor], None]
GivenUp = Callable[[], frozenset[int]]  # indices of cancelled clips


@dataclass(frozen=True)
class ClipRequest:
    """One clip to make."""

    text: Tensor  # encoder rows (L, C)
    seed: int
    frames: Tensor  # uint8 (N, H, W, 3)
    given: tuple[int, ...]  # their indices in the clip


class _GivenUp(Exception):
    """The current clip was cancelled."""


class VideoGenerator:
    """Makes clips with one pipeline.

    Args:
        on_step: called after every model call with its number among those of the whole batch, and again, with the same
            number, before each block of the autoencoder.
        on_part: called with the clip's index in the batch, the index of a frame, and decoded frames from there on,
            while later frames of the clip are not decoded yet.
    """

    def __init__(
        self, pipeline: GivenFramesPipeline, on_step: OnStep, given_up: GivenUp, on_part: OnPart = lambda *_: None
    ) -> None:
        self._pipeline = pipeline
        self._on_step = on_step
        self._given_up = given_up
        self._on_part = on_part

    def generate(self, requests: Sequence[ClipRequest], negative: Tensor, z: Tensor | None) -> dict[int, Tensor]:
        """Clips uint8 (F, H, W, 3) by index in the batch, without clips cancelled meanwhile."""
        made: dict[int, Tensor] = {}
        per_clip = self._pipeline.sampler.num_model_calls()
        for index, request in enumerate(requests):
            try:
                made[index] = self._one(index, request, negative, z, per_clip, per_clip * len(requests))
            except _GivenUp:
                continue
        return made

    def _one(
        self, index: int, request: ClipRequest, negative: Tensor, z: Tensor | None, per_clip: int, total: int
    ) -> Tensor:
        num_done = index * per_clip

        def tell() -> None:
            self._on_step(num_done, total)
            if index in self._given_up():
                raise _GivenUp

        def on_step(number: int, latents: Tensor) -> None:
            nonlocal num_done
            num_done = index * per_clip + number + 1
            tell()

        def on_frames(start: int, frames: Tensor) -> None:
            if start + len(frames) < size.frames:
                self._on_part(index, start, frames)

        tell()
        pipeline, size = self._pipeline, self._pipeline.size
        images = [frame[None] for frame in frames_to_pixels(request.frames, size.height, size.width)]
        with pipeline.vae.calling(tell):
            return pipeline.sample(
                request.text, negative, images, request.given, request.seed, z=z, on_step=on_step, on_frames=on_frames
            )


def clip_requests(
    texts: Sequence[Tensor], seeds: Sequence[int], frames: Sequence[Tensor], given: tuple[int, ...]
) -> list[ClipRequest]:
    """One request per prompt. Raises: InputError: the numbers of seeds, clips of frames and prompts differ."""
    if not texts or not len(texts) == len(seeds) == len(frames):
        raise InputError(
            f"expected a seed and given frames for each prompt, got {len(texts)} prompts, {len(seeds)} seeds, "
            f"{len(frames)} clips of frames"
        )
    return [ClipRequest(text, seed, clip, given) for text, seed, clip in zip(texts, seeds, frames, strict=True)]


def stacked(frames: Tensor | Sequence[Tensor], num_dimensions: int, what: str) -> Tensor:
    """Check uint8 pictures or clips. Raises: InputError naming the argument."""
    if not isinstance(frames, torch.Tensor) or frames.dtype != torch.uint8 or frames.ndim != num_dimensions:
        shown = f"{frames.dtype} {tuple(frames.shape)}" if isinstance(frames, torch.Tensor) else type(frames).__name__
        layout = "(B, H, W, 3)" if num_dimensions == 4 else "(B, N, H, W, 3)"
        raise InputError(f"{what}: expected uint8 {layout}, got {shown}")
    return frames
