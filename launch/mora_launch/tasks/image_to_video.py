"""Image to video: animates a picture, which becomes the first frame."""

from __future__ import annotations

from collections.abc import Iterator

from mora_data.reading.fitting import Clip

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.continuation import continued, wanted_frames
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Stages


def image_to_video(request: TaskRequest, agents: Agents, stages: Stages) -> Iterator[Clip]:
    """Animate the picture. The prompt is not enhanced, because the picture already shows the details."""
    image = request.image
    assert image is not None, "checked before"
    most = wanted_frames(request.seconds, request.fps, agents.num_frames)
    clip, prompt = stages.frames(
        "segment 1", request.prompt, lambda text, seed: agents.image_to_video(text, seed, image, most)
    )
    yield from continued(clip, prompt, wanted_frames(request.seconds, request.fps, len(clip)), agents, stages)
