"""Files of a checkpoint: written whole, synced, and hashed, so that a manifest can vouch for them.

Used by `Participant` in servers and by the coordinator. A file is complete on disk before its hash is reported.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from mora_runtime import tracing
from mora_runtime.errors import CheckpointError

_CHUNK_NBYTES = 1 << 20


@dataclass(frozen=True)
class ShardFile:
    """One file of a checkpoint: path relative to the checkpoint's folder, size, SHA-256."""

    path: str
    nbytes: int
    sha256: str


class ShardWriter:
    """Writes and hashes files in a thread of its own, so that the next step computes meanwhile.

    What is given must be copies: it is read after `__init__` has returned.

    Args:
        root: folder that the reported paths are relative to.
        files: tensors, or text, by path.
    """

    def __init__(self, root: Path, files: Mapping[Path, Mapping[str, torch.Tensor] | str]) -> None:
        self._root = root
        self._files = files
        self._written: list[ShardFile] = []
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._write, name="shard-writer", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        try:
            with tracing.span("write shards", "io"):
                for path, content in self._files.items():
                    if isinstance(content, str):
                        write_text(path, content)
                    else:
                        write_tensors(path, content)
                    self._written.append(describe(path, self._root))
        except OSError as error:
            self._error = error

    @property
    def is_done(self) -> bool:
        """True when `result` does not wait."""
        return not self._thread.is_alive()

    def result(self, timeout_s: float) -> list[ShardFile]:
        """Wait for all files.

        Raises:
            CheckpointError: the disk refused, or was not done in time; nothing may be committed.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise CheckpointError(f"a checkpoint's files were not written within {timeout_s:.0f} s; is the disk slow?")
        if self._error is not None:
            raise CheckpointError(f"a file of the checkpoint could not be written: {self._error.strerror}")
        return self._written


def copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Dense copies in host memory of tensors that go on changing."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file and sync it.

    Raises:
        OSError: the disk refused (ENOSPC, EIO, ...); the file may be partial and its checkpoint must not be committed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    detached = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    save_file(detached, str(path), metadata={"format": "pt"})
    sync(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file and sync it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sync(path)


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
