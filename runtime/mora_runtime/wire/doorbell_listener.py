"""The listening socket behind a server's doorbells."""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from mora_runtime.errors import ProtocolError
from mora_runtime.limits import HANDSHAKE_TIMEOUT_S, MAX_NUM_WAITING

_TOKEN_NBYTES = 32
_CREDENTIALS = struct.Struct("3i")
_BACKLOG = 512


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that was killed; ProtocolError if one still listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(HANDSHAKE_TIMEOUT_S)
        try:
            asking.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # the backlog is full, so a server is listening
    raise ProtocolError("another server of this role is running in this run; end it first")


class DoorbellListener:
    """A server's listening doorbell: accepts, checks the user, matches tokens to connections.

    Raises:
        ProtocolError: another server listens on this path.
    """

    def __init__(self, path: str) -> None:
        _remove_stale(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(path)
        self._socket.listen(_BACKLOG)
        self._socket.setblocking(False)
        self._waiting: dict[int, tuple[float, socket.socket]] = {}  # descriptor -> (accepted at, socket), oldest first
        self._poller = select.epoll()  # of the listening socket and of those that have not presented a token
        self._poller.register(self._socket, select.EPOLLIN)

    def fileno(self) -> int:
        """For pollers: readable when `accept` has something to do."""
        return self._poller.fileno()

    def accept(self) -> list[tuple[str, socket.socket]]:
        """Return newly connected sockets of this process's user, each with the token it presented."""
        while True:
            try:
                connected, _ = self._socket.accept()
            except OSError:
                break
            credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(credentials)[1] != os.getuid():
                connected.close()
                continue
            connected.setblocking(False)
            self._waiting[connected.fileno()] = (time.monotonic(), connected)
            self._poller.register(connected, select.EPOLLIN)
        presented = self._presented()
        self._close_overdue()
        return presented

    def _presented(self) -> list[tuple[str, socket.socket]]:
        presented = []
        for descriptor, (_, connected) in list(self._waiting.items()):
            try:
                token = connected.recv(_TOKEN_NBYTES)
            except BlockingIOError:
                continue
            except OSError:
                token = b""
            self._forget(descriptor)
            if token:
                presented.append((token.decode("ascii", "replace"), connected))
            else:
                connected.close()
        return presented

    def _close_overdue(self) -> None:
        """Close sockets that have been silent for too long, and the oldest ones above the limit."""
        oldest_s = time.monotonic() - HANDSHAKE_TIMEOUT_S
        excess = len(self._waiting) - MAX_NUM_WAITING
        for number, (descriptor, (since_s, connected)) in enumerate(list(self._waiting.items())):
            if number < excess or since_s < oldest_s:
                self._forget(descriptor)
                connected.close()

    def _forget(self, descriptor: int) -> None:
        del self._waiting[descriptor]
        self._poller.unregister(descriptor)

    def close(self) -> None:
        """Stop listening."""
        self._poller.close()
        self._socket.close()
        for _, connected in self._waiting.values():
            connected.close()
