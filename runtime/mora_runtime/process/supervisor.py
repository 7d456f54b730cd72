"""Starting, watching and ending the role processes of one job: the launcher's event loop."""

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
_AFTERMATH_S = 0.5  # after one role has ended: wait so long for roles that end because of it
_MAX_LAST_WORDS = 8  # reads from the link of an ended role: more than the socket's buffer needs
_TICK_S = 0.5  # between checks for frozen roles
_ASLEEP_S = 2.0  # a longer gap between ticks means that the launcher itself did not run


class RolesEnded(RoleFailed):
    """Roles of a running job have ended unexpectedly.

    Attributes:
        is_recoverable: a process died, or a worker failed because of that; False if a worker failed by an error that a
            restart would only reproduce.
    """

    def __init__(self, text: str, *, is_recoverable: bool) -> None:
        super().__init__(text)
        self.is_recoverable = is_recoverable


class Supervisor:
    """Owns the role processes of a job; leaving the context ends all of them in any case.

    Args:
        print_line: prints one line on the terminal.
        frozen_after_s: a ready role without a sign of life for so long is killed; None = never.
        observe: called about twice a second with the role processes, while the supervisor waits for events.
        takes_signals: count SIGINT and SIGTERM in `num_interrupts`, which needs the main thread; False leaves the
            handlers unchanged, for use as a library.
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
        self._old_handlers: dict[signal.Signals, Any] = {}  # handlers that `take_signals` replaced
        self.num_interrupts = 0

    def __enter__(self) -> Supervisor:
        self._wakeup.setblocking(False)
        self._signalled.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)
        if self._takes_signals:
            self.take_signals()
        return self

    def take_signals(self) -> None:
        """Count SIGINT and SIGTERM in `num_interrupts` from now on; call it in the main thread."""
        if self._old_handlers:
            return
        self._old_wakeup = signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def give_signals_back(self) -> None:
        """Restore the handlers from before `take_signals`; the role processes stay supervised."""
        if not self._old_handlers:
            return
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        self._old_handlers = {}

    def wake(self) -> None:
        """End the current or the next wait for events early; may be called by any thread."""
        with contextlib.suppress(BlockingIOError):  # the socket is full of unread wake-ups
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
        """Start one role process and watch it from now on."""
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
            RolesEnded: a role died or reported failure; its last log lines are in the text.
            RoleFailed: a role was not ready in time.
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
        """Wait until every worker has ended by itself, while all servers must stay alive. Returns exit codes.

        The first interrupt asks the workers to stop at their next safe point, the second ends everything.

        Raises:
            RolesEnded: a server ended, or a worker failed; the other roles still run.
            KeyboardInterrupt: interrupted twice.
        """
        running = set(workers)
        asked = False
        while running:
            if self.num_interrupts and not asked:
                asked = True
                self._print_line("stopping after this step, with a checkpoint; interrupt again to end at once")
                for child in running:
                    child.ask_to_stop()
            if self.num_interrupts > 1:
                raise KeyboardInterrupt("ended immediately; the last committed checkpoint is intact")
            for child in self._gone(timeout_s=None):
                if child not in running or child.process.returncode not in (0, 3):
                    raise self._ended_unasked(child, workers)
                running.discard(child)
        return [child.process.returncode for child in workers]

    def _ended_unasked(self, first: RoleProcess, workers: Sequence[RoleProcess]) -> RolesEnded:
        """Wait briefly for roles that end because of the first, and build the error that names the cause."""
        gone = [first]
        deadline = time.monotonic() + _AFTERMATH_S
        while (remaining_s := deadline - time.monotonic()) > 0:
            gone += self._gone(timeout_s=remaining_s)
        cause = min(gone, key=lambda child: (not child.was_killed, child in workers, child.error is None))
        # once a process has died, others fail because of it, with various errors
        lost = any(child not in workers or child.was_killed for child in gone)
        is_recoverable = lost or all(child.is_recoverable for child in gone)
        return RolesEnded(_account(cause, "while the job was running"), is_recoverable=is_recoverable)

    def look(self, *, timeout_s: float) -> list[RoleProcess]:
        """Wait for events, at most half a second, and handle them; returns role processes that have ended."""
        return self._gone(timeout_s=timeout_s)

    def discard(self, children: Sequence[RoleProcess]) -> None:
        """Kill role processes, if they still run, and forget them."""
        for child in children:
            self._unwatch(child)
            child.kill()
            _wait(child, STOP_DEADLINE_S)
            child.close()
            self._children.remove(child)

    def _gone(self, *, timeout_s: float | None) -> list[RoleProcess]:
        """Wait for events, one tick at most; return role processes that have ended, with exit codes collected."""
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
        # If several end at once, one that reported an error comes first: it is the cause of the others.
        return sorted(gone, key=lambda child: child.error is None)

    def _is_alive(self, child: RoleProcess, descriptor: int) -> bool:
        if descriptor != child.pidfd:
            return child.receive()
        for _ in range(_MAX_LAST_WORDS):  # its last messages may arrive after its end
            # a process that it started may still have the socket's other end open, and may even write
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
                child.pulse.beat()  # heartbeats could not be read meanwhile
            child.kill_if_frozen()
        if self._observe is not None:
            self._observe(self._children)

    def _end_all(self, *, orderly: bool) -> None:
        """Stop all role processes in reverse order of start; after the deadline kill those that are left."""
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
    child.kill()  # also ends the processes that it started
    _wait(child, STOP_DEADLINE_S)


def _wait(child: RoleProcess, timeout_s: float) -> bool:
    try:
        child.process.wait(max(0.0, timeout_s))
    except subprocess.TimeoutExpired:
        return False
    return True


def _when(child: RoleProcess) -> str:
    return "while other roles were loading" if child.is_ready else "before it was ready"


def _account(child: RoleProcess, when: str) -> str:
    tail = child.log_tail()
    shown = f"\n  last lines of {child.output}:\n{tail}" if tail else ""
    return f"{child.role} {child.exit_cause()}, {when}{shown}"


def _is_readable(link: socket.socket) -> bool:
    poller = select.poll()  # select takes no descriptor above 1,023, and `serve` may have more clients
    poller.register(link, select.POLLIN)
    return bool(poller.poll(0))
