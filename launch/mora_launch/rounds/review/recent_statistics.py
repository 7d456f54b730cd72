"""Statistics of a run for many pages that ask all the time: reading all its rounds once serves them all for a while."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

from mora_launch.rounds.review.terminal import statistics

_KEPT_S = 4.0


class RecentStatistics:
    """At most a few seconds old."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._text = ""
        self._read_s = -math.inf
        self._lock = threading.Lock()

    def text(self) -> str:
        """Agreement over all rounds, for people."""
        with self._lock:
            if time.monotonic() - self._read_s >= _KEPT_S:
                self._text = statistics(self._run)
                self._read_s = time.monotonic()
            return self._text

    def forget(self) -> None:
        """Something was decided here, and whoever decided it wants to see it counted."""
        with self._lock:
            self._read_s = -math.inf
