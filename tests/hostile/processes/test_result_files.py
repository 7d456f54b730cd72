"""Other local user: a folder that this user can write to and fills with links. No file is written through a link."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mora_launch.generation.result_file import ResultFile
from mora_runtime.errors import ConfigurationError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.fresh_file import fresh_file, write_fresh
from mora_runtime.process.run_directory import RunDirectory

WRITERS: dict[str, Callable[[Path], object]] = {
    "fresh file": lambda path: write_fresh(path, b"ours"),
    "state": lambda path: replace_text(path, "ours"),
    "result": lambda path: ResultFile(path).write(b"ours", {}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_link_in_place_of_the_result_is_replaced_and_not_followed(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for target in ("out.mp4", "out.mp4.json"):
        (tmp_path / target).symlink_to(precious)
    WRITERS[name](tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"ours"
    assert not (tmp_path / "out.mp4").is_symlink()
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("name", WRITERS)
def test_temporary_names_cannot_be_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    opened: list[tuple[str, int, int]] = []
    real = os.open

    def watched(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            opened.append((os.fspath(path), flags, mode))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", watched)
    WRITERS[name](tmp_path / "out.mp4")
    WRITERS[name](tmp_path / "out.mp4")
    assert len({path for path, _, _ in opened}) == len(opened)
    for path, flags, mode in opened:
        assert len(path) > 24
        assert str(os.getpid()) != path.split(".")[-2]
        assert flags & os.O_EXCL
        assert flags & os.O_NOFOLLOW
        assert flags & os.O_CLOEXEC
        assert mode == 0o600


def test_a_name_that_already_exists_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    (tmp_path / ".known.partial").symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_fresh(tmp_path / "out.mp4", b"ours")
    assert precious.read_text() == "precious"
    assert (tmp_path / ".known.partial").is_symlink(), "what is another's is left alone"


def test_a_folder_that_was_swapped_during_the_write_gets_no_file(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    with fresh_file(tmp_path / "ours" / "out") as file:
        file.write(b"ours")
        (tmp_path / "ours").rename(tmp_path / "moved")
        (tmp_path / "ours").symlink_to("theirs")
    assert list((tmp_path / "theirs").iterdir()) == []
    assert (tmp_path / "moved" / "out").read_bytes() == b"ours"


def test_only_a_whole_file_gets_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with fresh_file(tmp_path / "out") as file:
            (partial,) = tmp_path.iterdir()
            assert stat.S_IMODE(partial.stat().st_mode) == 0o600
            file.write(b"x")
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_many_writers_of_one_name_leave_one_whole_file(tmp_path: Path) -> None:
    texts = [str(number) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=replace_text, args=(tmp_path / "state", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (tmp_path / "state").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_failed_write_leaves_no_part_of_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")

    def fail() -> None:
        with fresh_file(tmp_path / "out") as file:
            file.write(b"new")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "old"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["config.json", "logs/launcher.jsonl", "roles/image.0/settings.json", "checkpoints"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_a_run_that_contains_a_link_or_pipe_is_not_resumed(tmp_path: Path, name: str, kind: str) -> None:
    RunDirectory.create(tmp_path / "run").close()
    planted, precious = tmp_path / "run" / name, tmp_path / "precious"
    precious.write_text("precious")
    planted.parent.mkdir(parents=True, exist_ok=True)
    if planted.is_dir():
        planted.rmdir()
    os.mkfifo(planted) if kind == "pipe" else planted.symlink_to(precious if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=f"contains `.*{name}`, a link, pipe or device"):
        RunDirectory.create(tmp_path / "run", lock=True)
    assert precious.read_text() == "precious"
