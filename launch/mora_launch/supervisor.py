"""Starting, watching and ending the processes of one job. The launcher's event loop; it computes nothing itself."""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from mora_runtime.errors import RoleFailed

from mora_launch.child import Child

STOP_DEADLINE_S = 10.0
_AFTERMATH_S = 0.5  # in which those that end because another has ended are seen to end


class RolesEnded(RoleFailed):
    """Roles of a running job have ended that should not have.

    Attributes:
        is_recoverable: a process died, or a worker lost one; False where a worker itself gave up for a reason that
            would be there again.
    """

    def __init__(self, text: str, *, is_recoverable: bool) -> None:
        super().__init__(text)
        self.is_recoverable = is_recoverable


class Supervisor:
    """Owns the children of a job; leaving the context ends every one of them, whatever happened.

    Args:
        say: shows one line to the person at the terminal.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._signalled = socket.socketpair()
        self.num_interrupts = 0

    def __enter__(self) -> Supervisor:
        self._wakeup.setblocking(False)
        self._signalled.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)
        self._old_wakeup = signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.num_interrupts += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_all(orderly=kind is None)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        self._selector.close()
        self._wakeup.close()
        self._signalled.close()

    def start(
        self, role: str, command: Sequence[str], *, variables: Mapping[str, str], output: Path | None, folder: Path
    ) -> Child:
        """Start one role; it is watched from now on."""
        child = Child(role, command, variables=variables, output=output, folder=folder)
        self._children.append(child)
        self._selector.register(child.link, selectors.EVENT_READ, child)
        return child

    def wait_ready(self, children: Sequence[Child], *, deadline_s: float) -> bool:
        """Wait until all of `children` are ready; False when interrupted meanwhile.

        Raises:
            RoleFailed: one died or reported failure, or was not ready in time; its last log lines are in the text.
        """
        deadline = time.monotonic() + deadline_s
        while not all(child.is_ready for child in children):
            if self.num_interrupts:
                return False
            waiting = [child.role for child in children if not child.is_ready]
            if time.monotonic() > deadline:
                raise RoleFailed(f"{', '.join(waiting)}: not ready within {deadline_s:.0f} s; see the logs of the run")
            for child in self._gone(timeout_s=deadline - time.monotonic()):
                raise RoleFailed(_account(child, "before it was ready"))
        return True

    def wait_finished(self, workers: Sequence[Child]) -> list[int]:
        """Wait until every worker has ended by itself; the other children must live as long. Returns exit codes.

        The first interrupt asks the workers to stop at their next safe point, the second ends everything.

        Raises:
            RolesEnded: a server ended, or a worker failed; the others still run.
            KeyboardInterrupt: interrupted twice.
        """
        running = set(workers)
        asked = False
        while running:
            if self.num_interrupts and not asked:
                asked = True
                self._say("stopping after this step, with a checkpoint; once more to end at once")
                for child in running:
                    child.ask_to_stop()
            if self.num_interrupts > 1:
                raise KeyboardInterrupt
            for child in self._gone(timeout_s=None):
                if child not in running or child.process.returncode not in (0, 3):
                    raise self._ended_unasked(child, workers)
                running.discard(child)
        return [child.process.returncode for child in workers]

    def _ended_unasked(self, first: Child, workers: Sequence[Child]) -> RolesEnded:
        """What happened, once those have ended too that could not go on without the first."""
        gone = [first]
        deadline = time.monotonic() + _AFTERMATH_S
        while (remaining_s := deadline - time.monotonic()) > 0:
            gone += self._gone(timeout_s=remaining_s)
        cause = min(gone, key=lambda child: (not child.was_killed, child in workers, child.error is None))
        # where a process was lost, others fail for that, in ways of their own
        lost = any(child not in workers or child.was_killed for child in gone)
        is_recoverable = lost or all(child.is_recoverable for child in gone)
        return RolesEnded(_account(cause, "while the job was running"), is_recoverable=is_recoverable)

    def discard(self, children: Sequence[Child]) -> None:
        """End children at once, those that have ended already included, and forget them."""
        for child in children:
            if child.link in self._selector.get_map():
                self._selector.unregister(child.link)
            child.kill()
            _wait(child, STOP_DEADLINE_S)
            child.link.close()
            self._children.remove(child)

    def _gone(self, *, timeout_s: float | None) -> list[Child]:
        """Wait for events; return children whose link has closed, their exit codes collected."""
        gone = []
        for key, _ in self._selector.select(timeout_s):
            child = key.data
            if child is None:
                self._wakeup.recv(4096)
            elif not child.receive():
                self._selector.unregister(child.link)
                _collect(child)
                gone.append(child)
        # Where several end at once the one that says why comes first: it is the cause, the others follow from it.
        return sorted(gone, key=lambda child: child.error is None)

    def _end_all(self, *, orderly: bool) -> None:
        """Stop every child in reverse order of start within the deadline; what is left then is killed."""
        if orderly:
            deadline = time.monotonic() + STOP_DEADLINE_S
            for child in reversed(self._children):
                child.ask_to_stop()
            for child in reversed(self._children):
                _wait(child, deadline - time.monotonic())
        for child in reversed(self._children):
            child.kill()
            _wait(child, STOP_DEADLINE_S)
            child.link.close()


def _collect(child: Child) -> None:
    if not _wait(child, STOP_DEADLINE_S):
        child.kill()
        _wait(child, STOP_DEADLINE_S)


def _wait(child: Child, timeout_s: float) -> bool:
    try:
        child.process.wait(max(0.0, timeout_s))
    except subprocess.TimeoutExpired:
        return False
    return True


def _account(child: Child, when: str) -> str:
    tail = child.log_tail()
    shown = f"\n  last lines of {child.output}:\n{tail}" if tail else ""
    return f"{child.role} {child.exit_cause()}, {when}{shown}"
