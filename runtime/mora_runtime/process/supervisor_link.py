"""The role process's end of the socket to its launcher.

The role sends `role_messages`: `Ready`, `Failed`, and a `Beat` every second from a separate thread, so that it is sent
while the process computes. The launcher sends `go` and `stop`. End-of-file means that the launcher has ended: another
thread, which only watches for this, then ends the process at once. PR_SET_PDEATHSIG does the same in the moment before
that thread runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable

from mora_runtime.process.role_messages import (
    GO,
    STOP,
    BadRoleMessage,
    Beat,
    Failed,
    Lines,
    Ready,
    RoleMessage,
    Vitals,
    encode,
)

__all__ = ["BEAT_EVERY_S", "EXIT_ORPHANED", "SupervisorLink", "Vitals", "die_with_parent", "own_vitals"]

_PR_SET_PDEATHSIG = 1
EXIT_ORPHANED = 70
BEAT_EVERY_S = 1.0
_MAX_WORD_NBYTES = 64
_PAGE_NBYTES = os.sysconf("SC_PAGE_SIZE")


def die_with_parent() -> None:
    """Make the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class SupervisorLink:
    """A role process's link to its launcher.

    Args:
        descriptor: number of the inherited socket; None runs without a launcher (in tests or by hand).

    Attributes:
        describe: returns what the role is doing, for every heartbeat, besides memory and descriptors. Called by the
            heartbeat's thread.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._stop = threading.Event()
        self._go = threading.Event()
        self._socket: socket.socket | None = None
        self._sending = threading.Lock()
        self._wakeup, self._waker = socket.socketpair()
        self.describe: Callable[[], Vitals] = dict
        if descriptor is None:
            return
        die_with_parent()
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)  # or a tool that this process starts could keep the link open after its end
        for work in (self._watch, self._beat):
            threading.Thread(target=work, args=(self._socket,), name=work.__name__.strip("_"), daemon=True).start()

    def _watch(self, link: socket.socket) -> None:
        lines = Lines(_MAX_WORD_NBYTES)
        while True:
            try:
                data = link.recv(4096)
            except OSError:
                data = b""
            if not data:
                os._exit(EXIT_ORPHANED)
            try:
                for word in lines.take(data):
                    self._obey(word)
            except BadRoleMessage:  # the other end is not a launcher
                os._exit(EXIT_ORPHANED)

    def _obey(self, word: bytes) -> None:
        if word == GO:
            self._go.set()
        elif word == STOP:
            self.request_stop()

    def _beat(self, link: socket.socket) -> None:
        pause = threading.Event()
        while not pause.wait(BEAT_EVERY_S):
            try:
                vitals = {**own_vitals(), **self.describe()}
            except OSError:
                vitals = {}  # no descriptor is free to read /proc; the beat itself needs none
            line = encode(Beat(vitals))
            with self._sending:
                try:
                    link.send(line, socket.MSG_DONTWAIT)  # small, so it is sent completely or not at all
                except BlockingIOError:
                    continue  # the launcher is stopped and does not read; this thread must not block
                except OSError:
                    return  # the launcher has ended, which the other thread notices

    def request_stop(self) -> None:
        """Ask this process to end at its next safe point (also called by signal handlers)."""
        self._stop.set()
        self._waker.send(b"s")

    def wait_for_go(self) -> bool:
        """Wait until the launcher sends `go`, because the roles that this one needs are ready; False on `stop`."""
        while not self._go.wait(0.2):
            if self.stop_requested():
                return False
        return True

    def stop_requested(self) -> bool:
        """True once the launcher, or a signal, has asked to stop."""
        return self._stop.is_set()

    def fileno(self) -> int:
        """A descriptor that becomes readable when a stop is requested, for pollers."""
        return self._wakeup.fileno()

    def ready(self) -> None:
        """Tell the launcher that this role serves."""
        self._send(Ready())

    def failed(self, error: str, *, is_recoverable: bool = False) -> None:
        """Tell the launcher why this role ends, and whether starting it again could help."""
        self._send(Failed(error, is_recoverable))

    def _send(self, message: RoleMessage) -> None:
        if self._socket is not None:
            with self._sending:
                self._socket.sendall(encode(message))


def own_vitals() -> Vitals:
    """Resident memory and number of open descriptors of this process."""
    with open("/proc/self/statm", encoding="ascii") as handle:
        resident = int(handle.read().split()[1])
    return {"rss_nbytes": resident * _PAGE_NBYTES, "num_fds": len(os.listdir("/proc/self/fd")) - 1}
