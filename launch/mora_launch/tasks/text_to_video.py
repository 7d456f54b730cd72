"""Text to video: enhances the prompt, makes a picture, animates it, and continues to the requested length."""

from __future__ import annotations

from collections.abc import Iterator

from mora_data.reading.fitting import Clip

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.continuation import continued, wanted_frames
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Stages


def text_to_video(request: TaskRequest, agents: Agents, stages: Stages) -> Iterator[Clip]:
    """Run the whole chain (figure 1 of the paper)."""
    prompt = request.prompt
    if request.enhance:
        prompt = stages.text("prompt", lambda: agents.enhance(request.prompt))
    image, prompt = stages.frames("image", prompt, agents.text_to_image)
    most = wanted_frames(request.seconds, request.fps, agents.num_frames)
    clip, prompt = stages.frames("segment 1", prompt, lambda text, seed: agents.image_to_video(text, seed, image, most))
    yield from continued(clip, prompt, wanted_frames(request.seconds, request.fps, len(clip)), agents, stages)
