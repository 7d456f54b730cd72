"""`mora test --ends`: what it runs at the two ends of the runtime's ranges, and its table."""

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_launch.environments.venvs import ROOT, RUNTIME
from mora_launch.testing import ends
from mora_launch.testing.ends import ENDS, run_ends
from mora_launch.testing.side_by_side import Ended
from mora_launch.testing.stages import Stage
from rich.console import Console


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """The stages that were run; none is really run, and the hostile tests of the lowest end fail."""
    stages: list[Stage] = []

    def run_all(chosen: Sequence[Stage], num_jobs: int, console: Console) -> list[Ended]:
        stages.extend(chosen)
        return [ended(stage) for stage in chosen]

    def ended(stage: Stage) -> Ended:
        if stage.name == "hostile: lowest":
            return Ended(stage, 1, 3.0, "...F\n1 failed, 206 passed in 60.10s\n")
        said = "gradients are equal\n" if stage.name.startswith("example") else "...\n480 passed, 2 skipped in 51.2s\n"
        return Ended(stage, 0, 3.0, said)

    monkeypatch.setattr(
        ends, "_build", lambda end, folder, console: Path(sys.executable).with_name(f"python-{end.name}")
    )
    monkeypatch.setattr(ends, "ask_interpreter", lambda python: TOLD)
    monkeypatch.setattr(ends, "run_all", run_all)
    return stages


TOLD = ends.Interpreter(version="3.11.7", prefix="/", distributions={"torch": "2.4.0"})


def table(console: Console) -> list[list[str]]:
    """Cells of the printed lines."""
    return [re.split(r" {2,}", line.strip()) for line in console.export_text().splitlines()]


def test_the_table_has_both_ends_and_a_failure_is_the_exit_code(ran: list[Stage]) -> None:
    console = Console(record=True, width=200, quiet=False)
    assert run_ends(console) == 1
    rows = table(console)
    assert ["torch", "2.4.0", "2.4.0"] in rows
    assert ["numpy", "-", "-"] in rows
    assert ["unit tests", "480 passed, 2 skipped (3 s)", "480 passed, 2 skipped (3 s)"] in rows
    assert ["hostile tests", "1 failed, 206 passed (3 s)", "480 passed, 2 skipped (3 s)"] in rows
    assert ["example, server at the other end", *["gradients are equal (3 s)"] * 2] in rows


def test_the_example_runs_from_each_end_against_the_other(ran: list[Stage]) -> None:
    run_ends(Console(quiet=True))
    used = [
        (Path(stage.command[0]).name, Path(stage.command[2]).name) for stage in ran if stage.name.startswith("example")
    ]
    assert used == [("python-lowest", "python-newest"), ("python-newest", "python-lowest")]


def test_every_tested_path_exists(ran: list[Stage]) -> None:
    run_ends(Console(quiet=True))
    words = [word for stage in ran for word in stage.command if word.startswith(("tests/", "examples/"))]
    assert len(words) == 2 * 6
    assert all((ROOT / word).exists() for word in words)


def test_the_lowest_end_has_the_lowest_python_that_the_runtime_accepts() -> None:
    project = tomllib.loads((RUNTIME / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={ENDS[0].python_version}"
    assert ENDS[0].options == ("--resolution", "lowest-direct")


def test_nothing_else_goes_with_it() -> None:
    for words in (["tests"], ["--all"], ["--jobs", "2"]):
        refused = CliRunner().invoke(cli, ["test", "--ends", *words])
        assert refused.exit_code == 2
        assert "--ends goes with no other argument" in refused.output
