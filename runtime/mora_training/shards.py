"""Files of a checkpoint: written, synced, and hashed for the manifest.

Used by `OptimizerAgent` in servers and by the coordinator. A file is complete on disk before its hash is reported.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import torch
from mora_runtime.errors import CheckpointError
from mora_runtime.files.durable_files import ShardFile, describe, sync, write_text
from mora_runtime.limits import FILES_DEADLINE_S
from mora_runtime.process import faults
from mora_runtime.trace import tracing
from safetensors.torch import save_file


class ShardWriter:
    """Writes and hashes files in a thread of its own, so that the next step computes meanwhile.

    The tensors must be copies: they are read after `__init__` has returned.

    Args:
        root: folder that the reported paths are relative to.
        files: tensors, or text, by path.
    """

    def __init__(self, root: Path, files: Mapping[Path, Mapping[str, torch.Tensor] | str]) -> None:
        self._root = root
        self._files = files
        self._written: list[ShardFile] = []
        self._error: BaseException | None = None
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
        except BaseException as error:
            # of any class, for instance safetensors' own for a full disk; `result` raises it in the role's thread
            self._error = error

    @property
    def is_done(self) -> bool:
        """True when `result` would not wait."""
        return not self._thread.is_alive()

    def wait(self, timeout_s: float = FILES_DEADLINE_S) -> None:
        """Wait until the writing has ended, with or without an error.

        Raises:
            CheckpointError: it has not ended within `timeout_s`.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise CheckpointError(f"a checkpoint's files were not written within {timeout_s:.0f} s; is the disk slow?")

    def result(self, timeout_s: float) -> list[ShardFile]:
        """Wait for all files.

        Raises:
            CheckpointError: a write failed or did not end in time; the checkpoint must not be committed.
        """
        self.wait(timeout_s)
        if self._error is not None:
            reason = self._error.strerror if isinstance(self._error, OSError) else str(self._error)
            raise CheckpointError(f"a file of the checkpoint could not be written: {reason}") from self._error
        return self._written


def copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Dense copies in host memory, which later changes of the tensors do not affect."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file and sync it.

    Raises:
        OSError: the write failed (ENOSPC, EIO, ...); the file may be partial, its checkpoint must not be committed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    detached = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    save_file(detached, str(path), metadata={"format": "pt"})
    faults.reach("shard_written")
    sync(path)
    faults.reach("fsynced")
