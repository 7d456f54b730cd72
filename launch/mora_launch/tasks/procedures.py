"""The six procedures by name, and the function that runs one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.connect import connect
from mora_launch.tasks.edit import edit
from mora_launch.tasks.extend import extend
from mora_launch.tasks.image_to_video import image_to_video
from mora_launch.tasks.media import Clip
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.simulate import simulate
from mora_launch.tasks.stages import Stages
from mora_launch.tasks.text_to_video import text_to_video

PROCEDURES: Mapping[str, Callable[[TaskRequest, Agents, Stages], Clip]] = {
    "text_to_video": text_to_video,
    "image_to_video": image_to_video,
    "extend": extend,
    "edit": edit,
    "connect": connect,
    "simulate": simulate,
}


def run_task(request: TaskRequest, agents: Agents, stages: Stages) -> Clip:
    """Run a task; return its frames, uint8 (F, H, W, 3), at the model's size and the request's rate."""
    return PROCEDURES[request.task](request, agents, stages)
