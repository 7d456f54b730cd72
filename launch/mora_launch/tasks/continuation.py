"""Continues a clip from its last frame, segment by segment, to the requested length."""

from __future__ import annotations

import math

import numpy as np
from mora_data.reading.fitting import Clip

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.stages import Stages


def continued(frames: Clip, prompt: str, num_frames: int, agents: Agents, stages: Stages) -> Clip:
    """Continue `frames`, which have the model's size, to exactly `num_frames`; longer clips are cut."""
    segment = 1
    while len(frames) < num_frames:
        segment += 1
        last = frames[-1:]
        more, prompt = stages.frames(
            f"segment {segment}",
            prompt,
            lambda text, seed, last=last: agents.extend_video(text, seed, last),  # type: ignore[misc]
        )
        frames = np.concatenate([frames, more])
    return frames[:num_frames]


def wanted_frames(seconds: float | None, fps: float, default: int) -> int:
    """Return the number of frames in `seconds`; `default` if it is None."""
    return default if seconds is None else max(2, math.ceil(seconds * fps))
