"""Waits for the work that a server has accepted, after its first signal to end."""

from __future__ import annotations

import time

from rich.console import Console

from mora_launch.serving.http.front import Front
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.life.end_signals import EndSignals, Interrupted

_TICK_S = 0.1


def wait_drained(front: Front, jobs: VideoJobs, signals: EndSignals, timeout_s: float, console: Console) -> None:
    """Refuse new work, and wait until the accepted work is done or the time is over.

    Raises:
        Interrupted: another signal came meanwhile.
    """
    deadline = time.monotonic() + timeout_s
    front.drain.begin(timeout_s)
    left = _left(front, jobs)
    if not left:
        return
    console.print(f"stopping: waiting up to {timeout_s:g} s for {left}; signal again to end at once", markup=False)
    with console.status("") as shown:
        while left and (remaining_s := deadline - time.monotonic()) > 0:
            shown.update(f"waiting for {left}, {remaining_s:.0f} s left")
            signals.wait(min(_TICK_S, remaining_s))
            if len(signals.received) > 1:
                raise Interrupted(signals.received[-1], f"ended at once; not done: {left}")
            left = _left(front, jobs)
    console.print(f"not done within {timeout_s:g} s: {left}" if left else "all work is done", markup=False)


def _left(front: Front, jobs: VideoJobs) -> str:
    """Return what is not done, for the terminal; empty if all is."""
    parts = ((jobs.num_left, "video"), (front.drain.num_requests, "request"))
    return " and ".join(f"{count} {what}{'s' if count > 1 else ''}" for count, what in parts if count)
