"""Runs the command in a child where this process is PID 1, as the only program of a container.

The kernel ignores signals to PID 1 for which it has no handler. It also makes PID 1 the parent of every orphan of the
container, which remains a zombie until PID 1 collects it. The command itself is written for neither.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

_PASSED_ON = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


def become_child_of_first_process() -> None:
    """Return at once unless this is PID 1; then return in a child, whose exit code PID 1 takes over."""
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until the process that handles them is there
    child = os.fork()
    if child == 0:
        os.setsid()  # Ctrl-C in the container's terminal reaches PID 1 alone, which passes it on once
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(child, number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    os._exit(_collect_until(child))


def _collect_until(child: int) -> int:
    """Collect every process that ends, until the child does; return its exit code, 128 + N after signal N."""
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
