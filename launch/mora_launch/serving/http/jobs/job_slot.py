"""A place among the video jobs that work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from mora_runtime.errors import Cancelled

_TURN_TICK_S = 0.2


class Place:
    """One of the places of jobs that work; entering takes it.

    Args:
        is_cancelled: asked while it is waited for.
    """

    def __init__(self, places: threading.Semaphore, is_cancelled: Callable[[], bool]) -> None:
        self._places = places
        self._is_cancelled = is_cancelled
        self._is_held = False

    def take(self) -> None:
        """Wait for it. Raises: Cancelled: the job was, meanwhile."""
        while not self._places.acquire(timeout=_TURN_TICK_S):
            if self._is_cancelled():
                raise Cancelled("the task was cancelled")
        self._is_held = True

    def leave(self) -> None:
        """For the next; nothing where it is not held."""
        if self._is_held:
            self._is_held = False
            self._places.release()

    def __enter__(self) -> Place:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
