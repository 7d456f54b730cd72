"""The catalog is the only list of tasks: each has a procedure, and everything that offers tasks reads it."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli.command_line import cli
from mora_launch.tasks.catalog import EXAMPLE_FILES, TASKS
from mora_launch.tasks.procedures import procedure_of
from mora_launch.web import page_files

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


def test_the_command_line_offers_every_task() -> None:
    said = CliRunner().invoke(cli, ["generate", "--help"]).output
    assert all(name.replace("_", "-") in said for name in TASKS)


def test_every_task_is_described_to_users() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert not [name for name in TASKS if f"`{name.replace('_', '-')}`" not in page]
