"""Measures how much longer work takes here than on idle cores."""

import time

_WORK_S = 0.02


def slack() -> float:
    """Factor, at least 1, for time limits: the current wall-clock time of some work over its processor time."""
    started_s, used_s = time.monotonic(), time.thread_time()
    while time.thread_time() - used_s < _WORK_S:
        pass
    return max(1.0, (time.monotonic() - started_s) / _WORK_S)
