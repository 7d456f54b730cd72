"""Continues a clip from its last frame, segment by segment, to the requested length."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mora_data.reading.fitting import Clip

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.request import FRAME_TOLERANCE
from mora_launch.tasks.stages import Stages


def continued(first: Clip, prompt: str, num_frames: int, agents: Agents, stages: Stages) -> Iterator[Clip]:
    """Give the first segment, then segments that continue it: exactly `num_frames` frames; longer clips are cut."""
    segment, frames = 1, first[:num_frames]
    yield frames
    num_missing = num_frames - len(frames)
    while num_missing > 0:
        segment += 1
        last, most = frames[-1:], num_missing
        more, prompt = stages.frames(
            f"segment {segment}",
            prompt,
            lambda text, seed, last=last, most=most: agents.extend_video(text, seed, last, most),  # type: ignore[misc]
        )
        frames = more[:num_missing]
        yield frames
        num_missing -= len(frames)


def wanted_frames(seconds: float | None, fps: float, default: int) -> int:
    """Return the number of frames in `seconds`; `default` if it is None."""
    return default if seconds is None else max(2, math.ceil(seconds * fps - FRAME_TOLERANCE))
