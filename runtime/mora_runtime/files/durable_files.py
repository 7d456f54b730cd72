"""Files that survive a crash: synced to disk, described by size and hash. Starts without torch.

Used by the code that writes or reads checkpoints.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mora_runtime.files.fresh_file import write_fresh
from mora_runtime.files.shard_file import ShardFile, verify

__all__ = ["ShardFile", "describe", "replace_text", "sha256_of", "sync", "verify", "write_text"]

_CHUNK_NBYTES = 1 << 20


def write_text(path: Path, text: str) -> None:
    """Write a text file and sync it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sync(path)


def replace_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Replace a text file atomically: readers see the old or the new content, never a part.

    Args:
        synced: the new content survives a crash of the machine once this returns.

    Raises:
        OSError: the write failed; the old content is kept.
    """
    write_fresh(path, text, synced=synced)


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe(path: Path, root: Path) -> ShardFile:
    """Size and hash of a finished file, named relative to `root`."""
    return ShardFile(str(path.relative_to(root)), path.stat().st_size, sha256_of(path))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK_NBYTES):
            digest.update(chunk)
    return digest.hexdigest()
