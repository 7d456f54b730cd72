"""`mora curves` starts TensorBoard for the right folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_launch.jobs.registry import curves
from mora_launch.jobs.registry.curves import folder_with_curves
from mora_runtime.errors import ConfigurationError


def run_with_curves(folder: Path, written_s: float) -> Path:
    events = folder / "tensorboard" / "events.out.tfevents.1.host"
    events.parent.mkdir(parents=True)
    events.touch()
    os.utime(events, (written_s, written_s))
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without runs."""
    monkeypatch.setattr(curves, "ROOT", tmp_path)
    monkeypatch.setattr(curves, "live_runs", list)
    (tmp_path / "runs").mkdir()
    return tmp_path


def test_without_a_run_the_one_whose_curves_are_newest_is_shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = run_with_curves(root / "runs" / "a", 300.0)
    run_with_curves(root / "runs" / "b", 200.0)
    (root / "runs" / "served").mkdir()
    assert folder_with_curves(None) == newest
    alive = run_with_curves(root / "elsewhere", 400.0)
    monkeypatch.setattr(curves, "live_runs", lambda: [alive])
    assert folder_with_curves(None) == alive


def test_without_curves_it_says_where_it_looked(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="runs has curves"):
        folder_with_curves(None)
    with pytest.raises(ConfigurationError, match="found none"):
        folder_with_curves(root)


def test_tensorboard_of_this_environment_gets_folder_and_port(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with_curves(root / "runs" / "a", 300.0)
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: started.append([path, *words]))
    assert CliRunner().invoke(cli, ["curves", str(run), "--port", "7007"]).exit_code == 0
    assert started == [
        [sys.executable, sys.executable, "-m", "tensorboard.main", "--logdir", str(run), "--port", "7007"]
    ]
