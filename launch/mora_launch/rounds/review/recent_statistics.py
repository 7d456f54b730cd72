"""Cached statistics of a run, so that many pages that poll do not each read all rounds."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

from mora_launch.rounds.review.terminal import statistics

_KEPT_S = 4.0


class RecentStatistics:
    """Statistics that are at most a few seconds old."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._text = ""
        self._read_s = -math.inf
        self._lock = threading.Lock()

    def text(self) -> str:
        """Return the agreement over all rounds as text."""
        with self._lock:
            if time.monotonic() - self._read_s >= _KEPT_S:
                self._text = statistics(self._run)
                self._read_s = time.monotonic()
            return self._text

    def forget(self) -> None:
        """Drop the cached text after a decision, so that its reviewer sees it counted."""
        with self._lock:
            self._read_s = -math.inf
