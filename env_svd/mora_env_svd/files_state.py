"""Tells the files of a folder apart from other files, for caches of what they compute."""

from __future__ import annotations

from pathlib import Path


def files_state(folder: Path) -> list[tuple[str, int, int, int]]:
    """Name, size, time and inode of the files of a folder; empty for a Hub id, whose files never change."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()] if folder.is_dir() else []
    states = [(path, path.stat()) for path in paths]
    return [(str(path.relative_to(folder)), found.st_size, found.st_mtime_ns, found.st_ino) for path, found in states]
