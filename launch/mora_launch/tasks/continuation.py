"""A clip continued segment by segment from its last frame until the asked length."""

from __future__ import annotations

import math

import numpy as np

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.media import Clip
from mora_launch.tasks.stages import Stages


def continued(frames: Clip, prompt: str, num_frames: int, agents: Agents, stages: Stages) -> Clip:
    """`frames` at the model's size with what follows, `num_frames` in all; longer clips are cut there."""
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
    """Frames of so many seconds; one clip's where no length is asked for."""
    return default if seconds is None else max(2, math.ceil(seconds * fps))
