"""Each start has a run of its own: no two starts share a new directory, and a named one is never replaced."""

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mora_launch.jobs import run_path as module
from mora_launch.jobs.run_path import made_run, new_path, run_path
from mora_runtime.errors import ConfigurationError, RunExists


@pytest.fixture
def one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which every start happens within the same second; returns its `runs/`."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-000000")
    return tmp_path / "runs"


def test_starts_within_one_second_have_runs_of_their_own(one_second: Path) -> None:
    made = []
    for _ in range(3):
        made.append(made_run(None, run_path(None, "tiny", resume=False)))
        (made[-1] / "config.json").write_text("{}")  # its job has started
    assert [path.name for path in made] == ["tiny-20260101-000000", "tiny-20260101-000000-2", "tiny-20260101-000000-3"]
    assert all(path.parent == one_second and stat.S_IMODE(path.stat().st_mode) == 0o700 for path in made)


def test_simultaneous_starts_never_share_a_run(one_second: Path) -> None:
    path = new_path("tiny")
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: made_run(None, path), range(64)))
    assert len(set(made)) == 64
    assert {each.name for each in one_second.iterdir()} == {each.name for each in made}


def test_asking_for_the_path_of_a_run_makes_nothing(one_second: Path) -> None:
    run_path(None, "tiny", resume=False)
    assert not one_second.exists()


def test_a_named_run_is_used_as_it_is(tmp_path: Path) -> None:
    assert made_run(tmp_path, tmp_path) == tmp_path
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunExists, match="--resume"):
        run_path(tmp_path, "tiny", resume=False)
    assert run_path(tmp_path, "tiny", resume=True) == tmp_path


def test_a_checkout_that_cannot_be_written_is_told_with_the_option_that_helps(one_second: Path) -> None:
    one_second.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"cannot be made \(File exists\); name one .* with --run"):
        made_run(None, new_path("tiny"))
