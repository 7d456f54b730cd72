"""The catalog is the only list of tasks: each has a procedure, and everything that offers tasks reads it."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from mora_data.reading.timeline import Video
from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.cli.command_line import cli
from mora_launch.serving.settings import PromptAgentSettings
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.catalog import EXAMPLE_FILES, TASKS, called
from mora_launch.tasks.procedures import procedure_of, run_task
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Unreviewed
from mora_launch.web import page_files

from tests.unit.launch.instant_server import SIDE, InstantPool

ROOT = Path(__file__).resolve().parents[3]
PICTURES = {name for name in EXAMPLE_FILES if name.endswith(".png")}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_a_procedure_of_its_name(name: str) -> None:
    assert list(inspect.signature(procedure_of(name)).parameters) == ["request", "agents", "stages"]


@pytest.mark.parametrize("name", TASKS)
def test_examples_have_the_files_that_the_task_needs(name: str) -> None:
    task = TASKS[name]
    assert task.examples
    for example in task.examples:
        found = Counter("image" if each in PICTURES else "video" for each in example.files)
        assert found["image"] == int(task.needs_image), example
        assert task.num_videos <= found["video"] <= task.num_videos + task.num_optional_videos, example
        for each in example.files:
            assert (Path(page_files.__file__).parent / "assets" / each).is_file()


@pytest.mark.parametrize("has_editor", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_a_task_calls_the_capabilities_that_it_names(name: str, has_editor: bool) -> None:
    task, pool = TASKS[name], InstantPool()
    if has_editor:
        pool.agents["edit_image"] = "editor"
    picture = np.zeros((SIDE, SIDE, 3), np.uint8) if task.needs_image else None
    seconds = 2.0 if "seconds" in task.fields else None
    for num_videos in range(task.num_videos, task.num_videos + task.num_optional_videos + 1):
        videos = (Video(np.zeros((6, SIDE, SIDE, 3), np.uint8), 8.0),) * num_videos
        request = TaskRequest(name, "a cat", 7, 8.0, picture, videos, seconds, 0.5)
        agents = Agents(pool, prompt_agent(PromptAgentSettings()), sampling=request.sampling(), deadline_s=60.0)  # type: ignore[arg-type]
        run_task(request, agents, Unreviewed(7))
    assert {capability for capability, _ in pool.submitted} == set(called(task, pool.capabilities()))


def test_the_command_line_offers_every_task() -> None:
    said = CliRunner().invoke(cli, ["generate", "--help"]).output
    assert all(name.replace("_", "-") in said for name in TASKS)


def test_every_task_is_described_to_users() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert not [name for name in TASKS if f"`{name.replace('_', '-')}`" not in page]
