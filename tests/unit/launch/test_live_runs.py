"""Commands without a RUN find the runs that are alive, wherever they are, and forget those that were killed."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest
from mora_launch.jobs import status
from mora_launch.jobs.registry.live_runs import listed, live_runs
from mora_launch.jobs.run_status import StatusWriter
from mora_launch.jobs.status import find_run, find_run_to_stop, show_all
from mora_runtime.errors import ConfigurationError
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's session; home and checkout are empty."""
    folder = tmp_path / "session"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(status, "ROOT", tmp_path / "checkout")
    return folder


def entries(folder: Path) -> list[Path]:
    return list((folder / "mora" / "runs").iterdir())


def finished_run(tmp_path: Path) -> Path:
    """A run in `runs/` of the checkout, whose status is newer than any other."""
    old = tmp_path / "checkout" / "runs" / "old"
    old.mkdir(parents=True)
    with StatusWriter(old, "serve"):
        pass
    os.utime(old / "status.json", (time.time() + 60, time.time() + 60))
    return old


def test_a_live_run_is_found_before_a_newer_one_that_has_ended(tmp_path: Path, session: Path) -> None:
    old = finished_run(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    with RunDirectory.create(elsewhere, lock=True), StatusWriter(elsewhere, "serve"):
        assert live_runs() == [elsewhere]
        assert find_run(None) == elsewhere
        assert find_run(old) == old
    assert live_runs() == []
    assert entries(session) == []
    assert find_run(None) == old


def test_without_a_session_the_entry_is_in_the_home(
    tmp_path: Path, session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with RunDirectory.create(run, lock=True), listed(run):
        assert len(entries(tmp_path / "state")) == 1
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
        assert live_runs() == [run], "also from a session"


def test_the_entry_of_a_killed_launcher_is_removed(tmp_path: Path, session: Path) -> None:
    run = tmp_path / "run"
    with RunDirectory.create(run, lock=True):
        killed = listed(run)
        killed.__enter__()
    assert len(entries(session)) == 1
    assert live_runs() == []
    assert entries(session) == []


def test_a_run_is_not_refused_where_no_folder_can_be_written(
    tmp_path: Path, session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nothing")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    with RunDirectory.create(tmp_path / "run", lock=True), listed(tmp_path / "run"):
        assert live_runs() == []


@pytest.mark.parametrize("content", ["relative/run", "", "x" * 5000, "/nothing/here", "/run\0"])
def test_a_strange_entry_names_no_run(session: Path, content: str) -> None:
    folder = session / "mora" / "runs"
    folder.mkdir(parents=True)
    (folder / "entry").write_text(content)
    assert live_runs() == []


def shown(*, as_json: bool) -> str:
    sink = io.StringIO()
    show_all(Console(file=sink, width=200), as_json=as_json)
    return sink.getvalue()


def test_all_live_runs_are_shown(tmp_path: Path, session: Path) -> None:
    assert shown(as_json=False) == "no run is alive\n"
    assert json.loads(shown(as_json=True)) == []
    with pytest.raises(ConfigurationError, match="no run is alive, and none is in"):
        find_run(None)
    first, second = tmp_path / "first", tmp_path / "second"
    with (
        RunDirectory.create(first, lock=True),
        StatusWriter(first, "serve"),
        RunDirectory.create(second, lock=True),
        StatusWriter(second, "train"),
    ):
        lines = shown(as_json=False).splitlines()
        assert [line for line in lines if line.startswith("/")] == [str(first), str(second)]
        assert [each["run"] for each in json.loads(shown(as_json=True))] == [str(first), str(second)]


def test_stop_takes_the_only_live_run_and_refuses_to_choose(tmp_path: Path, session: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with RunDirectory.create(first, lock=True), StatusWriter(first, "serve"):
        assert find_run_to_stop(None) == first
        with RunDirectory.create(second, lock=True), StatusWriter(second, "train"):
            assert find_run_to_stop(second) == second
            with pytest.raises(ConfigurationError, match=f"2 runs are alive; name the one to stop: {first}, {second}"):
                find_run_to_stop(None)
