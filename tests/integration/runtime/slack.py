"""How much longer things take here than on idle cores."""

import time

_WORK_S = 0.05


def slack() -> float:
    """Factor, at least 1, for limits of time: what some work takes now, over the processor time that it needs."""
    started_s, used_s = time.monotonic(), time.thread_time()
    while time.thread_time() - used_s < _WORK_S:
        pass
    return max(1.0, (time.monotonic() - started_s) / _WORK_S)
