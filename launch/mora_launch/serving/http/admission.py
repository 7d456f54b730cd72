"""Limits the number of requests in progress; clients of further ones are told to retry later."""

from __future__ import annotations

import threading
import time

from mora_runtime.errors import MoraError


class TooBusy(MoraError):
    """A request was refused for now.

    Attributes:
        retry_after_s: estimated time until there is room.
    """

    code = "too_busy"

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Admission:
    """Counts requests from acceptance to answer.

    Args:
        what: name of what is counted, for messages.
    """

    def __init__(self, max_waiting: int, what: str = "requests") -> None:
        self._max_waiting = max_waiting
        self._what = what
        self._lock = threading.Lock()
        self._mean_s = 1.0  # moving average of the time between two answers
        self._last_s = time.monotonic()
        self.num_admitted = 0

    def enter(self) -> None:
        """Count one more request. Raises: TooBusy: the limit is reached."""
        with self._lock:
            if self.num_admitted >= self._max_waiting:
                wait_s = max(1, min(60, round(self._mean_s * self.num_admitted / 4)))
                limit = f"the limit is {self._max_waiting}"
                text = f"{self.num_admitted} {self._what} are in progress, {limit}; retry later"
                raise TooBusy(text, wait_s)
            self.num_admitted += 1

    def leave(self) -> None:
        """Count one request less, after its answer."""
        with self._lock:
            now_s = time.monotonic()
            self._mean_s = 0.9 * self._mean_s + 0.1 * (now_s - self._last_s)
            self._last_s = now_s
            self.num_admitted -= 1
