"""Starting, watching and ending the processes of one job. The launcher's event loop; it computes nothing itself."""

from __future__ import annotations

import contextlib
import select
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from mora_runtime.errors import RoleFailed
from mora_runtime.process.role_process import RoleProcess

STOP_DEADLINE_S = 10.0
_AFTERMATH_S = 0.5  # in which those that end because another has ended are seen to end
_MAX_LAST_WORDS = 8  # reads from the link of one that has ended: more than it can hold
_TICK_S = 0.5  # between looks at what does not announce itself
_ASLEEP_S = 2.0  # ticks so far apart tell that this process itself did not run


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
        print_line: shows one line to the person at the terminal.
        frozen_after_s: a role that is ready and gives no sign of life for so long is killed; None waits for ever.
        observe: called about twice a second with the children, while they are waited for.
        takes_signals: SIGINT and SIGTERM are counted in `num_interrupts`, from the main thread alone; False leaves
            them to whoever has them, for use as a library.
    """

    def __init__(
        self,
        print_line: Callable[[str], None],
        *,
        frozen_after_s: float | None = None,
        observe: Callable[[Sequence[RoleProcess]], None] | None = None,
        takes_signals: bool = True,
    ) -> None:
        self._takes_signals = takes_signals
        self._print_line = print_line
        self._frozen_after_s = frozen_after_s
        self._observe = observe
        self._next_tick_s = 0.0
        self._children: list[RoleProcess] = []
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._signalled = socket.socketpair()
        self._old_wakeup = -1
        self._old_handlers: dict[signal.Signals, Any] = {}  # what `take_signals` replaced; empty while it has not
        self.num_interrupts = 0

    def __enter__(self) -> Supervisor:
        self._wakeup.setblocking(False)
        self._signalled.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)
        if self._takes_signals:
            self.take_signals()
        return self

    def take_signals(self) -> None:
        """Count SIGINT and SIGTERM in `num_interrupts` from now on; in the main thread alone."""
        if self._old_handlers:
            return
        self._old_wakeup = signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def give_signals_back(self) -> None:
        """Let SIGINT and SIGTERM act as they did before `take_signals`; the children are supervised all the same."""
        if not self._old_handlers:
            return
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        self._old_handlers = {}

    def wake(self) -> None:
        """End the present or the next wait for events early; may be called by any thread."""
        with contextlib.suppress(BlockingIOError):  # full of wake-ups that have not been read yet
            self._signalled.send(b"w")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.num_interrupts += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_all(orderly=kind is None)
        self.give_signals_back()
        self._selector.close()
        self._wakeup.close()
        self._signalled.close()

    def start(
        self,
        role: str,
        command: Sequence[str],
        *,
        variables: Mapping[str, str],
        output: Path | None,
        folder: Path,
        generation: int = 1,
    ) -> RoleProcess:
        """Start one role; it is watched from now on."""
        child = RoleProcess(
            role,
            command,
            variables=variables,
            output=output,
            folder=folder,
            generation=generation,
            frozen_after_s=self._frozen_after_s,
        )
        self._children.append(child)
        self._selector.register(child.link, selectors.EVENT_READ, child)
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        return child

    def wait_ready(self, children: Sequence[RoleProcess], *, deadline_s: float) -> bool:
        """Wait until all of `children` are ready; False when interrupted meanwhile.

        Raises:
            RolesEnded: a child died or reported failure; its last log lines are in the text.
            RoleFailed: one was not ready in time.
        """
        deadline = time.monotonic() + deadline_s
        while not all(child.is_ready for child in children):
            if self.num_interrupts:
                return False
            waiting = [child.role for child in children if not child.is_ready]
            if time.monotonic() > deadline:
                raise RoleFailed(f"{', '.join(waiting)}: not ready within {deadline_s:.0f} s; see the logs of the run")
            for child in self._gone(timeout_s=deadline - time.monotonic()):
                raise RolesEnded(_account(child, _when(child)), is_recoverable=child.is_recoverable)
        return True

    def wait_finished(self, workers: Sequence[RoleProcess]) -> list[int]:
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
                self._print_line("stopping after this step, with a checkpoint; once more to end at once")
                for child in running:
                    child.ask_to_stop()
            if self.num_interrupts > 1:
                raise KeyboardInterrupt("ended at once; the last committed checkpoint is intact")
            for child in self._gone(timeout_s=None):
                if child not in running or child.process.returncode not in (0, 3):
                    raise self._ended_unasked(child, workers)
                running.discard(child)
        return [child.process.returncode for child in workers]

    def _ended_unasked(self, first: RoleProcess, workers: Sequence[RoleProcess]) -> RolesEnded:
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

    def look(self, *, timeout_s: float) -> list[RoleProcess]:
        """Wait for events at most so long, look after every child; returns those that have ended meanwhile."""
        return self._gone(timeout_s=timeout_s)

    def discard(self, children: Sequence[RoleProcess]) -> None:
        """End children at once, those that have ended already included, and forget them."""
        for child in children:
            self._unwatch(child)
            child.kill()
            _wait(child, STOP_DEADLINE_S)
            child.close()
            self._children.remove(child)

    def _gone(self, *, timeout_s: float | None) -> list[RoleProcess]:
        """Wait for events, a tick at most; return children that have ended, their exit codes collected."""
        gone: list[RoleProcess] = []
        for key, _ in self._selector.select(_TICK_S if timeout_s is None else min(timeout_s, _TICK_S)):
            child = key.data
            if child is None:
                self._wakeup.recv(4096)
            elif child not in gone and not self._is_alive(child, key.fd):
                self._unwatch(child)
                _collect(child)
                gone.append(child)
        self._tick()
        # Where several end at once the one that says why comes first: it is the cause, the others follow from it.
        return sorted(gone, key=lambda child: child.error is None)

    def _is_alive(self, child: RoleProcess, descriptor: int) -> bool:
        if descriptor != child.pidfd:
            return child.receive()
        for _ in range(_MAX_LAST_WORDS):  # which may lie behind its end
            # something that it started may hold the other end still, and may even go on to write
            if not child.receive() or not _is_readable(child.link):
                break
        return False

    def _unwatch(self, child: RoleProcess) -> None:
        for source in (child.link, child.pidfd):
            if source in self._selector.get_map():
                self._selector.unregister(source)

    def _tick(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_tick_s:
            return
        was_asleep = self._next_tick_s > 0 and now_s - self._next_tick_s > _ASLEEP_S
        self._next_tick_s = now_s + _TICK_S
        for child in self._children:
            if was_asleep and child.pulse is not None:
                child.pulse.beat()  # nobody could be heard meanwhile
            child.kill_if_frozen()
        if self._observe is not None:
            self._observe(self._children)

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
            child.close()


def _collect(child: RoleProcess) -> None:
    _wait(child, STOP_DEADLINE_S)
    child.kill()  # what it may have started ends with it
    _wait(child, STOP_DEADLINE_S)


def _wait(child: RoleProcess, timeout_s: float) -> bool:
    try:
        child.process.wait(max(0.0, timeout_s))
    except subprocess.TimeoutExpired:
        return False
    return True


def _when(child: RoleProcess) -> str:
    return "while others were loading" if child.is_ready else "before it was ready"


def _account(child: RoleProcess, when: str) -> str:
    tail = child.log_tail()
    shown = f"\n  last lines of {child.output}:\n{tail}" if tail else ""
    return f"{child.role} {child.exit_cause()}, {when}{shown}"


def _is_readable(link: socket.socket) -> bool:
    poller = select.poll()  # select takes no descriptor beyond 1,023, and a front may have as many clients
    poller.register(link, select.POLLIN)
    return bool(poller.poll(0))
