"""Extend: continues a video from its last frame."""

from __future__ import annotations

from collections.abc import Iterator

from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import at_rate

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.continuation import continued, wanted_frames
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Stages


def extend(request: TaskRequest, agents: Agents, stages: Stages) -> Iterator[Clip]:
    """Give the video at the model's size and rate, then `seconds` more (one clip by default)."""
    given = agents.to_video_size(at_rate(request.videos[0], request.fps))
    yield given
    most = wanted_frames(request.seconds, request.fps, agents.num_frames)
    more, prompt = stages.frames(
        "segment 1", request.prompt, lambda text, seed: agents.extend_video(text, seed, given[-1:], most)
    )
    yield from continued(more, prompt, wanted_frames(request.seconds, request.fps, len(more)), agents, stages)
