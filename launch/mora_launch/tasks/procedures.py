"""Finds and runs the procedure of a task."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import numpy as np
from mora_data.reading.fitting import Clip

from mora_launch.tasks.agents import Agents
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Stages

Procedure = Callable[[TaskRequest, Agents, Stages], Iterator[Clip]]


def procedure_of(task: str) -> Procedure:
    """Return the procedure of a task of the catalog: the function of its name in the module of its name."""
    found: Procedure = getattr(importlib.import_module(f"mora_launch.tasks.{task}"), task)
    return found


def run_task(request: TaskRequest, agents: Agents, stages: Stages) -> Clip:
    """Run a task; return its frames, uint8 (F, H, W, 3), at the model's size and the request's rate."""
    return np.concatenate(list(task_pieces(request, agents, stages)))


def task_pieces(request: TaskRequest, agents: Agents, stages: Stages) -> Iterator[Clip]:
    """Run a task, and give its frames in order, each piece as soon as it is final: later ones are not made yet."""
    return procedure_of(request.task)(request, agents, stages)
