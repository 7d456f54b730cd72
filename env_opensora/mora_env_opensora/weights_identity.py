"""Tells weights apart for caches of what they compute."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from mora_environment.file_digests import FileDigests

_DIGESTS_FILE = "weights.json"


def digests_of(cache: Path | None) -> FileDigests | None:
    """The record, in a cache's folder, of the digests of weights; None without a folder."""
    return None if cache is None else FileDigests(cache / _DIGESTS_FILE)


def weights_lines(folder: Path, suffixes: Collection[str], digests: FileDigests | None) -> list[str]:
    """One line for each weights file of a folder, which changes with its content.

    Args:
        suffixes: of weights files.
        digests: for caches that outlive a job: every byte is hashed. None: path, size, time and inode identify a file
            well enough as long as one job runs.
    """
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in suffixes]
    return [f"{path.name} {_file_state(path) if digests is None else digests.sha256(path)}" for path in paths]


def identity_of(*parts: object) -> str:
    """One hash of several texts and numbers."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _file_state(path: Path) -> str:
    found = path.stat()
    return f"{path.resolve()} {found.st_size} {found.st_mtime_ns} {found.st_ino}"
