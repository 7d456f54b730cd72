"""Connect: joins two videos with a generated transition."""

from __future__ import annotations

from collections.abc import Iterator

from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import at_rate

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Stages


def connect(request: TaskRequest, agents: Agents, stages: Stages) -> Iterator[Clip]:
    """Give A, the transition, B. The transition's first and last frame repeat A's last and B's first, and are cut."""
    before, after = (agents.to_video_size(at_rate(video, request.fps)) for video in request.videos[:2])
    yield before
    transition, _ = stages.frames(
        "transition", request.prompt, lambda text, seed: agents.connect_videos(text, seed, before[-1], after[0])
    )
    yield transition[1:-1]
    yield after
