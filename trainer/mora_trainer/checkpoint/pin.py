"""Checkpoints that training may not remove: those that a process uses, and those that a person keeps.

A process that uses a checkpoint has a shared lock on its manifest, which the kernel frees when the process ends. A kept
checkpoint has a file `step-N.kept` next to its folder. Training removes a folder only without that file, and with the
exclusive lock. Starts without torch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import weakref
from pathlib import Path

from mora_runtime.errors import CheckpointError
from mora_runtime.files.durable_files import sync
from mora_runtime.files.file_lock import lock_file
from mora_runtime.files.foreign_file import open_beneath
from mora_runtime.limits import LOCK_DEADLINE_S

from mora_trainer.checkpoint.manifest import MANIFEST

log = logging.getLogger(__name__)
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of some file systems of clusters


class CheckpointPin:
    """While this object exists, training does not remove the checkpoint; a process that ends has no pins.

    Args:
        checkpoints: `<run>/checkpoints`.
        folder: step-00000012.

    Raises:
        CheckpointError: there is no such checkpoint, or training has just removed it.
    """

    def __init__(self, checkpoints: Path, folder: str) -> None:
        try:
            descriptor = open_beneath(checkpoints, f"{folder}/{MANIFEST}")
        except OSError as error:
            raise CheckpointError(f"{folder}/{MANIFEST}: cannot be read: {error.strerror}") from None
        self.close = weakref.finalize(self, os.close, descriptor)
        _lock_shared(descriptor, folder)
        if not _is_same(descriptor, checkpoints / folder / MANIFEST):
            self.close()
            raise CheckpointError(f"{folder}: training has just removed it; choose another, or keep it next time")

    def __enter__(self) -> CheckpointPin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock_shared(descriptor: int, folder: str) -> None:
    try:
        lock_file(descriptor, LOCK_DEADLINE_S, shown=folder, shared=True)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        log.warning("%s: its file system has no locks (%s), so training may remove it", folder, error.strerror)


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one with this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def is_pinned(checkpoints: Path, folder: str) -> bool:
    """Whether a process uses a checkpoint."""
    try:
        descriptor = open_beneath(checkpoints, f"{folder}/{MANIFEST}")
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # of a file system without locks
    finally:
        os.close(descriptor)
    return False


def _mark(checkpoints: Path, folder: str) -> Path:
    return checkpoints / f"{folder}.kept"


def is_kept(checkpoints: Path, folder: str) -> bool:
    """Whether a person keeps a checkpoint."""
    return os.path.lexists(_mark(checkpoints, folder))


def keep(checkpoints: Path, folder: str) -> None:
    """Mark a checkpoint, so that training never removes it. Marking it again changes nothing.

    Raises:
        CheckpointError: there is no such checkpoint, or the mark cannot be written.
    """
    with CheckpointPin(checkpoints, folder):  # otherwise training could remove it before it is marked
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(_mark(checkpoints, folder), flags, 0o600))
            sync(checkpoints)
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be marked as kept: {error.strerror}") from None


def release(checkpoints: Path, folder: str) -> None:
    """Remove the mark of `keep`: training removes the checkpoint when it writes the next one, if it is old enough.

    Raises:
        CheckpointError: the checkpoint is not marked, or the mark cannot be removed.
    """
    try:
        _mark(checkpoints, folder).unlink()
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: is not marked as kept, so there is nothing to release") from None
    except OSError as error:
        raise CheckpointError(f"{folder}: its mark cannot be removed: {error.strerror}") from None


def remove_unpinned(checkpoints: Path, folder: str) -> bool:
    """Remove a checkpoint; False if it is in use or kept, and stays.

    Its folder is renamed first, so that no process sees a part of a checkpoint under a checkpoint's name.
    """
    root = checkpoints / folder
    doomed = root.with_suffix(".tmp")
    with contextlib.ExitStack() as stack:
        # a folder without manifest is no checkpoint: a death while it was removed has left it
        if os.path.lexists(root / MANIFEST) and not _took_lock(root / MANIFEST, stack):
            return False
        if is_kept(checkpoints, folder):
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        root.rename(doomed)
    shutil.rmtree(doomed)
    return True


def _took_lock(manifest: Path, stack: contextlib.ExitStack) -> bool:
    """Take the exclusive lock of a manifest until the stack is closed; False if a process uses the checkpoint."""
    flags = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(manifest, os.O_RDWR | flags)  # network file systems give this lock only for writing
    except PermissionError:
        descriptor = os.open(manifest, os.O_RDONLY | flags)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True
