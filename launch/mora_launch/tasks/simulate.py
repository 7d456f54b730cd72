"""Simulate digital worlds: adds a style phrase to the prompt, then edits a given video or makes one from text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mora_data.reading.fitting import Clip

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.edit import edit
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Stages
from mora_launch.tasks.text_to_video import text_to_video

STYLE = "In digital world style"  # paper, section A.8


def simulate(request: TaskRequest, agents: Agents, stages: Stages) -> Iterator[Clip]:
    """Run `edit` if a video is given, else `text_to_video`, with the style added to the prompt."""
    styled = replace(request, prompt=f"{request.prompt.rstrip('. ')}. {STYLE}.")
    yield from (edit if request.videos else text_to_video)(styled, agents, stages)
