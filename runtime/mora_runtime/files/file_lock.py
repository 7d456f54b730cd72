"""Locking a file or folder against other processes, with a deadline. The kernel frees the lock when its owner dies."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable

from mora_runtime.errors import DeadlineExceeded

_TRY_EVERY_S = 0.02


def lock_file(
    descriptor: int,
    deadline_s: float,
    *,
    shown: str,
    shared: bool = False,
    on_wait: Callable[[], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Take the lock of an open file; closing the descriptor releases it.

    Args:
        shown: name of the file, for the error.
        shared: several processes may have the lock at once, but not together with one that has it exclusively.
        on_wait: called once, if another process has the lock.
        check: called before every attempt but the first; the wait ends with what it raises.

    Raises:
        DeadlineExceeded: another process has not released it by then.
    """
    deadline = time.monotonic() + deadline_s
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
                on_wait = None
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"{shown}: another process has held its lock for {deadline_s:.0f} s; stop it, then start again"
                ) from None
            time.sleep(_TRY_EVERY_S)  # flock cannot wait with a deadline
            check()
