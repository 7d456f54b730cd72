"""A child's end of the socket that ties its life to the launcher's.

Up go one JSON line each for `ready` and `failed`; down comes `stop`. End-of-file means that the launcher is gone: the
child then ends at once, whatever it is doing, from a thread that does nothing but watch. PR_SET_PDEATHSIG is the second
line of defence, for the moment before that thread runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import threading

_PR_SET_PDEATHSIG = 1
EXIT_ORPHANED = 70


class SupervisorLink:
    """The child's half.

    Args:
        descriptor: number of the inherited socket; None runs without a launcher (tests, by hand).
    """

    def __init__(self, descriptor: int | None) -> None:
        self._stop = threading.Event()
        self._socket: socket.socket | None = None
        self._wakeup, self._waker = socket.socketpair()
        if descriptor is None:
            return
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        self._socket = socket.socket(fileno=descriptor)
        threading.Thread(target=self._watch, args=(self._socket,), name="supervisor-link", daemon=True).start()

    def _watch(self, link: socket.socket) -> None:
        while True:
            try:
                data = link.recv(4096)
            except ConnectionResetError:
                data = b""
            if not data:
                os._exit(EXIT_ORPHANED)
            if b"stop" in data:
                self.request_stop()

    def request_stop(self) -> None:
        """Ask this process to end at its next safe point (also called by signal handlers)."""
        self._stop.set()
        self._waker.send(b"s")

    def stop_requested(self) -> bool:
        """True once the launcher, or a signal, has asked to stop."""
        return self._stop.is_set()

    def fileno(self) -> int:
        """A descriptor that becomes readable when a stop is requested, for pollers."""
        return self._wakeup.fileno()

    def ready(self) -> None:
        """Tell the launcher that this role serves."""
        self._send({"event": "ready"})

    def failed(self, error: str, *, is_recoverable: bool = False) -> None:
        """Tell the launcher, in one line, why this role ends, and whether starting it again could help."""
        self._send({"event": "failed", "error": error, "is_recoverable": is_recoverable})

    def _send(self, event: dict[str, str | bool]) -> None:
        if self._socket is not None:
            self._socket.sendall(json.dumps(event).encode() + b"\n")
