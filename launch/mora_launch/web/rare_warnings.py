"""A log filter that limits warnings per minute, so that a client cannot fill the server's log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mora_launch.limits import MAX_NUM_WARNINGS

_WINDOW_S = 60.0


class RareWarnings(logging.Filter):
    """Passes all errors, and the first `MAX_NUM_WARNINGS` warnings of each minute."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._since_s = now_s()
        self._num = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record."""
        if record.levelno >= logging.ERROR:
            return True
        if self._now_s() - self._since_s > _WINDOW_S:
            self._since_s, self._num = self._now_s(), 0
        self._num += 1
        return self._num <= MAX_NUM_WARNINGS
