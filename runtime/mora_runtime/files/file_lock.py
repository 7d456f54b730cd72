"""Locking a file or folder against other processes, with a deadline. The kernel frees the lock when its owner dies."""

from __future__ import annotations

import fcntl
import time

from mora_runtime.errors import DeadlineExceeded

_TRY_EVERY_S = 0.02


def lock_file(descriptor: int, deadline_s: float, *, shown: str) -> None:
    """Take the exclusive lock of an open file; closing the descriptor releases it.

    Args:
        shown: name of the file, for the error.

    Raises:
        DeadlineExceeded: another process has not released it by then.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"{shown}: another process has held its lock for {deadline_s:.0f} s; stop it, then start again"
                ) from None
            time.sleep(_TRY_EVERY_S)  # flock cannot wait with a deadline
