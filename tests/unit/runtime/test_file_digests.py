"""Digests of large files cover every byte, and an unchanged file is read only once."""

import hashlib
import os
from pathlib import Path

import pytest
from mora_environment import file_digests
from mora_environment.file_digests import FileDigests


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, in order."""
    names: list[str] = []
    sha256_of = file_digests.sha256_of
    monkeypatch.setattr(file_digests, "sha256_of", lambda path: (names.append(path.name), sha256_of(path))[1])
    return names


def test_an_untouched_file_is_read_once_by_all_processes(tmp_path: Path, read: list[str]) -> None:
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    for _ in range(3):
        digests = FileDigests(tmp_path / "record.json")  # as another process
        for name in ("a.bin", "b.bin"):
            assert digests.sha256(tmp_path / name) == hashlib.sha256(name.encode() * 1000).hexdigest()
    assert read == ["a.bin", "b.bin"]


def test_a_changed_byte_in_the_middle_changes_the_digest(tmp_path: Path) -> None:
    path, digests = tmp_path / "weights", FileDigests(tmp_path / "record.json")
    content = bytearray(1 << 20)
    path.write_bytes(content)
    before = digests.sha256(path)
    content[1 << 19] = 1
    path.write_bytes(content)
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))  # later even where the clock of files is coarse
    assert digests.sha256(path) == hashlib.sha256(content).hexdigest() != before


def test_a_new_file_with_the_same_name_is_read(tmp_path: Path, read: list[str]) -> None:
    path, digests = tmp_path / "weights", FileDigests(tmp_path / "record.json")
    path.write_bytes(b"old")
    digests.sha256(path)
    (tmp_path / "new").write_bytes(b"new")
    state = path.stat()
    os.utime(tmp_path / "new", ns=(state.st_atime_ns, state.st_mtime_ns))
    (tmp_path / "new").replace(path)  # same size and time, another inode
    assert digests.sha256(path) == hashlib.sha256(b"new").hexdigest()
    assert len(read) == 2


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"x": 1}', "\x00"])
def test_a_record_that_cannot_be_read_counts_as_empty(tmp_path: Path, read: list[str], broken: str) -> None:
    (tmp_path / "weights").write_bytes(b"content")
    (tmp_path / "record.json").write_text(broken)
    for _ in range(2):
        digest = FileDigests(tmp_path / "record.json").sha256(tmp_path / "weights")
        assert digest == hashlib.sha256(b"content").hexdigest()
    assert read == ["weights"]


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, digests = tmp_path / "weights", FileDigests(tmp_path / "record.json")
    path.write_bytes(b"before")

    def sha256_while_it_grows(path: Path) -> str:
        path.write_bytes(b"before and after")
        return "0" * 64

    with monkeypatch.context() as patched:
        patched.setattr(file_digests, "sha256_of", sha256_while_it_grows)
        digests.sha256(path)
    assert digests.sha256(path) == hashlib.sha256(b"before and after").hexdigest()
