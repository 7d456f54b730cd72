"""Warnings that clients cause, a few of them a minute, so that no client writes the server's log full."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mora_launch.limits import MAX_NUM_WARNINGS

_WINDOW_S = 60.0


class RareWarnings(logging.Filter):
    """Lets errors pass, and of warnings the first few of each minute."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._since_s = now_s()
        self._num = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged."""
        if record.levelno >= logging.ERROR:
            return True
        if self._now_s() - self._since_s > _WINDOW_S:
            self._since_s, self._num = self._now_s(), 0
        self._num += 1
        return self._num <= MAX_NUM_WARNINGS
