"""Files that outlive a crash: synced to disk, and vouched for by size and hash. Starts without torch.

Used for the files of a checkpoint, and by whoever looks at one.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from mora_runtime.errors import CheckpointError

_CHUNK_NBYTES = 1 << 20


@dataclass(frozen=True)
class ShardFile:
    """One file of a checkpoint: path relative to the checkpoint's folder, size, SHA-256."""

    path: str
    nbytes: int
    sha256: str


def write_text(path: Path, text: str) -> None:
    """Write a text file and sync it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sync(path)


def replace_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Write a text file so that its name stands for the old or the new content at every moment, and never for a part.

    Args:
        synced: the new content survives a crash of the machine once this returns.

    Raises:
        OSError: it could not be written; the old content stands.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            if synced:
                os.fsync(handle.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    if synced:
        sync(path.parent)


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


def verify(file: ShardFile, root: Path) -> Path:
    """Path of a file whose size and hash match the manifest.

    Raises:
        CheckpointError: the name leaves the folder, the file is missing, truncated or changed.
    """
    path = (root / file.path).resolve()
    if not path.is_relative_to(root.resolve()):
        raise CheckpointError(f"checkpoint file `{file.path}` lies outside its checkpoint; the manifest is foreign")
    if not path.is_file():
        raise CheckpointError(f"checkpoint file `{file.path}` is missing; resume from an earlier checkpoint")
    if path.stat().st_size != file.nbytes or sha256_of(path) != file.sha256:
        raise CheckpointError(
            f"checkpoint file `{file.path}`: expected {file.nbytes} bytes with SHA-256 {file.sha256[:12]}..., got "
            f"{path.stat().st_size} bytes with another hash; it was changed or cut off: resume from an earlier one"
        )
    return path
