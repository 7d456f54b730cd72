"""Finished clips, one after the other: in a chain, and for requests with progress, cancellation and parts.

A clip's bytes depend only on its plan and the settings: clips of one call never share a model call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mora_runtime import cancelled_samples, empty, report_part, report_step
from torch import Tensor

from mora_env_svd.clip_pipeline import ClipPipeline, PlanT


class _GivenUp(Exception):
    """The current clip was cancelled."""


def generated_clips(pipeline: ClipPipeline[PlanT], plans: Sequence[PlanT]) -> Tensor:
    """Clips of a chain, uint8 (B, F, H, W, 3) in shared memory."""
    outputs = empty((len(plans), *pipeline.clip_shape), torch.uint8)
    for index, plan in enumerate(plans):
        outputs[index] = pipeline.sample(plan)
    return outputs


def served_clips(pipeline: ClipPipeline[PlanT], plans: Sequence[PlanT], *, first: int = 0) -> Tensor:
    """Frames from `first` on of the clips of requests, uint8 (B, F - first, H, W, 3) in shared memory.

    After every step, and before each piece of work of the autoencoder, it reports the number of steps done in the whole
    batch and looks for cancelled clips. Frames are sent as parts while later ones are decoded. The rows of cancelled
    clips are zero.
    """
    made: dict[int, Tensor] = {}
    for index, plan in enumerate(plans):
        try:
            made[index] = _one(pipeline, plan, index, len(plans), first)[first:]
        except _GivenUp:
            continue
    num_frames, *picture = pipeline.clip_shape
    outputs = empty((len(plans), num_frames - first, *picture), torch.uint8)
    for index in range(len(plans)):
        outputs[index] = made.get(index, torch.zeros((), dtype=torch.uint8))
    return outputs


def _one(pipeline: ClipPipeline[PlanT], plan: PlanT, index: int, num_clips: int, first: int) -> Tensor:
    per_clip, num_frames = pipeline.num_steps, pipeline.clip_shape[0]
    num_done = index * per_clip

    def tell() -> None:
        report_step(num_done, num_clips * per_clip)
        if index in cancelled_samples():
            raise _GivenUp

    def on_step(number: int, latents: Tensor) -> None:
        nonlocal num_done
        num_done = index * per_clip + number + 1
        tell()

    def on_frames(start: int, frames: Tensor) -> None:
        end = start + len(frames)
        if first < end < num_frames:
            report_part(sample=index, start=max(0, start - first), outputs=frames[max(0, first - start) :])

    tell()
    return pipeline.sample(plan, before_piece=tell, on_step=on_step, on_frames=on_frames)
