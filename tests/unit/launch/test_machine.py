"""The limit of open files, and the refusal to start where the system forbids what every job needs."""

import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_launch.config.train_config import load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.jobs.doctor import examine
from mora_launch.jobs.machine import allow_open_files, check_machine, machine_findings
from mora_launch.serving.running_servers import RunningServers
from mora_runtime.errors import ConfigurationError, MemoryFilesForbidden
from mora_runtime.files.memory_file import memory_file
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

TOYS = ROOT / "tests" / "toy_agents" / "pair.yaml"


@pytest.fixture
def no_memory_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that refuses memfd_create."""

    def refuse(name: str, flags: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", refuse)


@pytest.fixture
def file_limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_to_the_allowed_maximum_for_children_too(file_limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, file_limits[1]))
    allow_open_files()
    show = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == file_limits[1] > 128


def test_a_machine_that_allows_everything_passes() -> None:
    check_machine()
    assert [finding.fix for finding in machine_findings()] == ["", ""]


def test_a_limit_of_open_files_that_a_job_would_meet_is_told_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(ConfigurationError, match=r"^open files allowed: 64; .* --ulimit nofile=\d+"):
        check_machine()


def test_a_system_without_memory_files_is_named_with_its_system_call(no_memory_files: None) -> None:
    with pytest.raises(MemoryFilesForbidden, match=r"refuses memfd_create \(Operation not permitted\)"):
        memory_file("x")
    with pytest.raises(ConfigurationError, match=r"refuses memfd_create .*; allow this system call"):
        check_machine()


def test_a_machine_that_is_short_of_descriptors_is_not_taken_for_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        memory_file("x")


def test_training_rounds_and_serving_refuse_before_they_leave_anything(no_memory_files: None, tmp_path: Path) -> None:
    for words in (["train", str(TOYS)], ["train", str(TOYS), "--dry-run"], ["synthesize", str(TOYS)]):
        refused = CliRunner().invoke(cli, [*words, "--run", str(tmp_path / "run")])
        assert isinstance(refused.exception, ConfigurationError), refused.output
        assert "memfd_create" in str(refused.exception)
        assert not (tmp_path / "run").exists()
    with (
        RunDirectory.create(tmp_path / "served") as directory,
        pytest.raises(ConfigurationError, match="memfd_create"),
    ):
        RunningServers(load_config(TOYS, []), directory, Console(quiet=True))


def test_doctor_finds_that_memory_files_are_forbidden(no_memory_files: None) -> None:
    sink = io.StringIO()
    assert examine(None, None, Console(file=sink, width=300)) == 1
    said = sink.getvalue()
    assert " !  the system refuses memfd_create (Operation not permitted)" in said
    assert "-> allow this system call" in said
