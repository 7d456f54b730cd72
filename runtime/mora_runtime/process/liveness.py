"""Whether a process is alive, judged by its heartbeats and, if these are missing, by its CPU time.

A heartbeat needs Python's global interpreter lock (GIL), which a library may hold for minutes while it computes. Such a
process is alive; one that is stopped, or sleeps while it holds the GIL, is frozen. Used by `Supervisor`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LATE_AFTER_S = 2.0  # heartbeats come every second
_LOOK_EVERY_S = 1.0
# Threads that wait for the GIL wake up every few milliseconds, which uses 0.5 % of a core each; computing uses more.
_ALIVE_SHARE = 0.10
_TICKS_IN_1_S = os.sysconf("SC_CLK_TCK")


class LivenessProbe:
    """Decides whether one process is frozen.

    Args:
        frozen_after_s: a process without any sign of life for so long is frozen.
        read: returns (state letter, used CPU seconds) of a process, as in /proc.
    """

    def __init__(
        self,
        pid: int,
        frozen_after_s: float,
        *,
        now_s: Callable[[], float] = time.monotonic,
        read: Callable[[int], tuple[str, float]] | None = None,
    ) -> None:
        self._pid = pid
        self._frozen_after_s = frozen_after_s
        self._now_s = now_s
        self._read = read or process_time
        self._seen: tuple[float, float] | None = None  # time of the last check, and the CPU time until then
        self.last_life_s = now_s()

    def beat(self) -> None:
        """Record a heartbeat."""
        self.last_life_s = self._now_s()
        self._seen = None

    def find_frozen(self) -> str | None:
        """Describe how the process is frozen, or return None if it is alive; call it about once a second."""
        now_s = self._now_s()
        if now_s - self.last_life_s < LATE_AFTER_S:
            return None
        if self._seen is not None and now_s - self._seen[0] < _LOOK_EVERY_S:
            return None
        try:
            state, used_s = self._read(self._pid)
        except (OSError, ValueError, IndexError):
            return None  # it has ended, which the supervisor notices by itself
        before, self._seen = self._seen, (now_s, used_s)
        # a process that waits for a disk (D) is left alone: a kill would take effect only after the disk's answer
        if state == "D" or (before is not None and used_s - before[1] >= _ALIVE_SHARE * (now_s - before[0])):
            self.last_life_s = now_s
            return None
        silent_s = now_s - self.last_life_s
        if silent_s < self._frozen_after_s:
            return None
        how = "was stopped" if state in "Tt" else "used almost no CPU and sent no heartbeat"
        return f"froze: it {how} for {silent_s:.0f} s"


def process_time(pid: int) -> tuple[str, float]:
    """State letter and CPU seconds (user and system, all threads) of a process.

    Raises:
        OSError: the process does not exist.
    """
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return fields[0], (int(fields[11]) + int(fields[12])) / _TICKS_IN_1_S
