"""The run directory is private, locked, and never someone else's."""

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from mora_runtime.errors import ConfigurationError, RunLocked
from mora_runtime.limits import MAX_SOCKET_PATH_NBYTES
from mora_runtime.process import run_directory
from mora_runtime.process.run_directory import RunDirectory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_run_and_its_sockets_and_keys_are_private(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "a" / "run", lock=True) as run:
        assert mode(run.path) == mode(run.sockets) == mode(run.keys) == 0o700
        assert run.logs.is_dir()
        assert run.checkpoints.is_dir()
        assert run.samples.is_dir()


def test_an_open_directory_is_made_private_by_the_launcher_and_refused_by_a_role(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir(mode=0o755)
    with RunDirectory.create(path) as run:
        assert mode(run.path) == 0o700
    path.chmod(0o750)
    with pytest.raises(ConfigurationError, match="open to other users; expected mode 0700"):
        RunDirectory.open(path)


def test_a_second_launcher_is_told_which_process_has_the_run(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", lock=True):
        script = (
            "import sys; from mora_runtime.process.run_directory import RunDirectory\n"
            "from mora_runtime.errors import RunLocked\n"
            "try: RunDirectory.create(sys.argv[1], lock=True)\n"
            "except RunLocked as error: print(error)"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "run")]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"another mora (process {os.getpid()}) is using it; wait for it, or choose another --run" in said


def test_a_refused_launcher_leaves_the_sockets_of_the_other_alone(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", lock=True) as run:
        (run.sockets / "image.0.calls.sock").touch()
        with pytest.raises(RunLocked):
            RunDirectory.create(tmp_path / "run", lock=True)
        assert (run.sockets / "image.0.calls.sock").exists()


def test_the_lock_is_free_again_after_close(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", lock=True).close()
    RunDirectory.create(tmp_path / "run", lock=True).close()


def test_a_link_a_file_and_a_path_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="symbolic link"):
        RunDirectory.create(tmp_path / "link")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        RunDirectory.open(tmp_path / "link")
    with pytest.raises(ConfigurationError, match="is not a directory"):
        RunDirectory.create(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="cannot be created"):
        RunDirectory.create(tmp_path / "file" / "run")


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(run_directory.os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    with pytest.raises(ConfigurationError, match="belongs to user id"):
        RunDirectory.create(tmp_path / "run")
    with pytest.raises(ConfigurationError, match="belongs to user id"):
        RunDirectory.open(tmp_path / "run")


def test_a_directory_that_is_missing_or_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        RunDirectory.open(tmp_path / "absent")
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=r"was not created by mora.s launcher"):
        RunDirectory.open(tmp_path / "empty")


def test_a_long_path_has_its_sockets_elsewhere_and_they_can_be_bound(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 25)
    with RunDirectory.create(path, lock=True) as run:
        assert run.sockets.parent != run.path
        assert mode(run.sockets) == 0o700
        longest = run.socket("coordinator.999", "control")
        assert len(os.fsencode(longest)) <= MAX_SOCKET_PATH_NBYTES
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(longest))
        assert RunDirectory.open(path).sockets == run.sockets
        elsewhere = run.sockets
    assert not elsewhere.exists()


def test_a_long_path_of_temporary_files_does_not_prevent_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / ("longer" * 15)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(temporary))
    with RunDirectory.create(tmp_path / ("long" * 25), lock=True) as run:
        assert run.sockets.parent == Path("/tmp")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("function", ["mkdtemp", "gettempdir"])
def test_a_start_without_a_short_folder_for_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def refuse(**_: object) -> str:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, function, refuse)
    with pytest.raises(ConfigurationError, match="choose a shorter --run, or a shorter TMPDIR"):
        RunDirectory.create(tmp_path / ("long" * 25))


def test_the_next_launcher_takes_over_the_sockets_folder_of_a_killed_one(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 25)
    killed = RunDirectory.create(path)
    (killed.sockets / "image.0.calls.sock").touch()
    with RunDirectory.create(path, lock=True) as run:
        assert run.sockets == killed.sockets
        assert list(run.sockets.iterdir()) == []
        run.sockets.chmod(0o755)  # as one that another user might have made in its place
        other = RunDirectory.create(path)
        assert other.sockets != run.sockets
    other.sockets.rmdir()


def test_stale_sockets_of_any_kind_are_removed(tmp_path: Path) -> None:
    sockets = tmp_path / "run" / "sockets"
    sockets.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(sockets / "image.0.calls.sock"))
    (sockets / "image.0.doorbell.sock").mkdir()
    (tmp_path / "precious").touch()
    (sockets / "image.0.control.sock").symlink_to(tmp_path / "precious")
    with RunDirectory.create(tmp_path / "run", lock=True) as run:
        assert list(run.sockets.iterdir()) == []
    assert (tmp_path / "precious").exists()
