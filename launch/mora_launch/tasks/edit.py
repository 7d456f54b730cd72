"""Edit: changes the first frame of a video by an instruction, then animates it again."""

from __future__ import annotations

from collections.abc import Iterator

from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import at_rate

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.continuation import continued, wanted_frames
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Stages


def edit(request: TaskRequest, agents: Agents, stages: Stages) -> Iterator[Clip]:
    """Edit a video; the result has its length unless the request says otherwise."""
    given = agents.to_video_size(at_rate(request.videos[0], request.fps))
    strength = request.strength
    assert strength is not None, "filled in before"
    image, prompt = stages.frames(
        "image", request.prompt, lambda text, seed: agents.edited(text, seed, given[0], strength)
    )
    wanted = wanted_frames(request.seconds, request.fps, len(given))
    clip, prompt = stages.frames(
        "segment 1", prompt, lambda text, seed: agents.image_to_video(text, seed, image, wanted)
    )
    yield from continued(clip, prompt, wanted, agents, stages)
