"""Atomic writes: a new file gets its name only when it is complete. Used for all results, states and records.

The file is created under a random name, exclusively and without following links, in its final folder. So another user
who can write to that folder cannot place a link or file where this one is written.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600  # until it is complete


@contextlib.contextmanager
def fresh_file(target: Path, *, synced: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `target` when the block succeeds and is deleted when it fails.

    Args:
        synced: content and name survive a crash of the machine.

    Raises:
        OSError: the write failed; a previous file is kept.
    """
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".{secrets.token_hex(12)}.partial"
    try:
        with _made(folder, name) as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            if synced:
                os.fsync(file.fileno())
            os.replace(name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        if synced:
            os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _made(folder: int, name: str) -> Iterator[BinaryIO]:
    with open(os.open(name, _EXCLUSIVE, _PRIVATE, dir_fd=folder), "wb") as file:
        try:
            yield file
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            raise


def write_fresh(target: Path, content: bytes | str, *, synced: bool = False) -> None:
    """Write a file atomically; text as UTF-8. Raises: OSError: as `fresh_file`."""
    with fresh_file(target, synced=synced) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_writable(target: Path) -> None:
    """Create and remove a file in the folder of `target`. Raises: OSError: the folder is not writable."""
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".{secrets.token_hex(12)}.partial"
    try:
        os.close(os.open(name, _EXCLUSIVE, _PRIVATE, dir_fd=folder))
        os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def _umask() -> int:
    """This process's umask; `os.umask` would have to change it for a moment, for every thread."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), 0o077)
