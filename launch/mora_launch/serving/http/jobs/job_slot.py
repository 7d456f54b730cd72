"""A slot among the video jobs that may work at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mora_runtime.errors import Cancelled

_TICK_S = 0.2


@contextmanager
def job_slot(slots: threading.Semaphore, is_cancelled: Callable[[], bool]) -> Iterator[None]:
    """Wait for a free slot and occupy it.

    Raises:
        Cancelled: the job was cancelled while it waited.
    """
    while not slots.acquire(timeout=_TICK_S):
        if is_cancelled():
            raise Cancelled("the task was cancelled")
    try:
        yield
    finally:
        slots.release()
