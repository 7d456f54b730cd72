"""Environments: what counts as built, and what happens when a build fails or two start at once."""

import io
import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from mora_launch.environments import venvs
from mora_launch.environments.venvs import STAMP_NAME, Environment, EnvironmentBuildError, ensure

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A small environment in its own checkout: an empty lock and one distribution without dependencies."""
    distribution = tmp_path / "thing"
    (distribution / "thing").mkdir(parents=True)
    (distribution / "thing" / "__init__.py").write_text("")
    (distribution / "pyproject.toml").write_text((ROOT / "runtime" / "pyproject.toml").read_text())
    lock = tmp_path / "requirements.lock"
    lock.write_text("")
    monkeypatch.setattr(venvs, "ROOT", tmp_path)
    made = Environment("small", lock, (distribution,))
    monkeypatch.setattr(venvs, "ENVIRONMENTS", {"small": made})
    return made


def fake_build(environment: Environment, uv: str) -> None:
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text("")
    with open(environment.folder.parent / "builds", "a") as handle:
        handle.write(f"{os.getpid()}\n")


def test_an_environment_without_a_stamp_is_rebuilt_from_nothing(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venvs, "_find_uv", lambda: "uv")
    monkeypatch.setattr(venvs, "_build_with_uv", fake_build)
    half_built = environment.folder / "half-written"
    half_built.mkdir(parents=True)
    assert not environment.is_built()
    ensure(["small"], progress=io.StringIO())
    assert environment.is_built()
    assert not half_built.exists()


def test_a_changed_lock_makes_it_outdated(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venvs, "_find_uv", lambda: "uv")
    monkeypatch.setattr(venvs, "_build_with_uv", fake_build)
    ensure(["small"], progress=io.StringIO())
    environment.lock_file.write_text("six==1.16.0\n")
    assert not environment.is_built()


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"lock_hash": 3}', "\x00"])
def test_a_broken_stamp_counts_as_not_built(environment: Environment, stamp: str) -> None:
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text("")
    (environment.folder / STAMP_NAME).write_text(stamp)
    assert not environment.is_built()


def test_a_failing_build_says_which_why_and_leaves_no_stamp(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = environment.folder.parent.parent / "uv"
    script.write_text(f"#!{sys.executable}\nimport sys; sys.exit('could not reach the index')")
    script.chmod(0o755)
    monkeypatch.setattr(venvs, "_find_uv", lambda: str(script))
    progress = io.StringIO()
    with pytest.raises(EnvironmentBuildError, match="environment small could not be built") as caught:
        ensure(["small"], progress=progress)
    assert "could not reach the index" in str(caught.value)
    assert "failed" in progress.getvalue()
    assert not environment.is_built()


def test_two_starts_at_once_build_once(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venvs, "_find_uv", lambda: "uv")
    monkeypatch.setattr(venvs, "_build_with_uv", fake_build)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=ensure, args=(["small"],)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    builds = (environment.folder.parent / "builds").read_text().split()
    assert len(builds) == 1


def test_every_lock_pins_every_package_and_names_no_place() -> None:
    for environment in (ROOT / "launch", ROOT / "env_sd3", ROOT / "env_opensora"):
        for line in (environment / "requirements.lock").read_text().splitlines():
            name, equals, version = line.partition("==")
            assert all((name, equals, version)), line
            assert not {"/", "+", "@"} & set(line), line


def test_the_described_environments_are_machine_readable() -> None:
    described = json.loads(json.dumps(venvs.describe()))
    assert set(described) == {"control", "sd3", "opensora"}
    assert described["opensora"]["python"].endswith("python")


def test_building_uses_the_python_beneath_the_environment_that_asks() -> None:
    """The command line runs in an environment without pip; asking that one would lose pip's configuration."""
    host = Path(venvs.HOST_PYTHON)
    assert host.exists()
    assert ROOT / ".venvs" not in host.parents
