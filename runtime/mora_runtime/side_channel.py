"""The Unix socket beside each connection: it carries descriptors of segments, and its end-of-file is the death notice.

One packet is a small header and one descriptor. Descriptors are sent before the message that needs them, so a receiver
that misses a segment finds it here or the sender never sent it.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
import time
from dataclasses import dataclass

from mora_runtime.errors import DeadlineExceeded, PeerDied, ProtocolError
from mora_runtime.limits import HANDSHAKE_TIMEOUT_S, MAX_NUM_WAITING, SIDE_DEADLINE_S

_PACKET = struct.Struct("!QQ128s")  # segment id, nbytes, owner
_TOKEN_NBYTES = 32
_CREDENTIALS = struct.Struct("3i")
_TIMEOUT = struct.Struct("ll")  # struct timeval
_BACKLOG = 512


@dataclass(frozen=True)
class OfferedSegment:
    """A segment's descriptor as it arrived; whoever takes it closes it."""

    owner: str
    segment_id: int
    nbytes: int
    descriptor: int


class SideChannel:
    """One end of a side socket (SOCK_SEQPACKET: packets stay whole)."""

    def __init__(self, connected: socket.socket, peer: str) -> None:
        self._socket = connected
        self._socket.setblocking(False)
        self._peer = peer
        self.is_open = True

    @classmethod
    def connect(cls, path: str, token: str, peer: str) -> SideChannel:
        """Connect to a server's side socket and present the token that its WELCOME gave."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # not settimeout: Python then connects without waiting, and a full backlog would look like a dead server
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEOUT.pack(round(SIDE_DEADLINE_S), 0))
        try:
            made.connect(path)
            made.send(token.encode())
        except OSError as error:
            made.close()
            raise PeerDied(f"{peer}: its side socket does not answer ({error.strerror}); it has ended") from None
        return cls(made, peer)

    def fileno(self) -> int:
        """For pollers."""
        return self._socket.fileno()

    def send_segment(self, offered: OfferedSegment, *, deadline_s: float) -> None:
        """Send a descriptor; the caller keeps its own copy.

        Raises:
            PeerDied, DeadlineExceeded
        """
        header = _PACKET.pack(offered.segment_id, offered.nbytes, offered.owner.encode())
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [offered.descriptor]).tobytes())]
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                self._socket.sendmsg([header], rights)
                return
            except BlockingIOError:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not select.select([], [self._socket], [], remaining)[1]:
                    raise DeadlineExceeded(f"{self._peer} takes no descriptors within {deadline_s:.0f} s") from None
            except OSError:
                self.is_open = False
                raise PeerDied(f"{self._peer} has ended") from None

    def receive(self) -> list[OfferedSegment]:
        """All descriptors that have arrived, without waiting; `is_open` turns False at end-of-file."""
        arrived: list[OfferedSegment] = []
        while self.is_open:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _PACKET.size, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            except OSError:
                self.is_open = False
                break
            descriptors = _descriptors(ancillary)
            if not data and not descriptors:
                self.is_open = False
            elif len(data) != _PACKET.size or len(descriptors) != 1:
                _close_all(descriptors)  # not of this protocol; the message that needs it will say so
            else:
                segment_id, nbytes, owner = _PACKET.unpack(data)
                name = owner.rstrip(b"\0").decode("ascii", "replace")
                arrived.append(OfferedSegment(name, segment_id, nbytes, descriptors[0]))
        return arrived

    def close(self) -> None:
        """Close this end; the peer sees end-of-file."""
        self.is_open = False
        self._socket.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that was killed; ProtocolError where one still listens."""
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
            pass  # so many wait to be accepted that one must be listening
    raise ProtocolError("another server of this role serves in this run; end it first")


class SideListener:
    """A server's listening side socket: accepts, checks the user, matches tokens to connections.

    Raises:
        ProtocolError: another server listens there.
    """

    def __init__(self, path: str) -> None:
        _remove_stale(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(path)
        self._socket.listen(_BACKLOG)
        self._socket.setblocking(False)
        self._waiting: list[tuple[float, socket.socket]] = []  # since when

    @property
    def num_waiting(self) -> int:
        """Sockets that have connected and not said yet whose they are."""
        return len(self._waiting)

    def fileno(self) -> int:
        """For pollers."""
        return self._socket.fileno()

    def accept(self) -> list[tuple[str, socket.socket]]:
        """Newly connected sockets of our own user with the token each presented."""
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
            self._waiting.append((time.monotonic(), connected))
        return self._presented()

    def _presented(self) -> list[tuple[str, socket.socket]]:
        presented, still_waiting = [], []
        oldest = time.monotonic() - HANDSHAKE_TIMEOUT_S
        for since, connected in self._waiting:
            try:
                token = connected.recv(_TOKEN_NBYTES)
            except BlockingIOError:
                if since > oldest:
                    still_waiting.append((since, connected))
                else:
                    connected.close()
                continue
            except OSError:
                token = b""
            if token:
                presented.append((token.decode("ascii", "replace"), connected))
            else:
                connected.close()
        for _, connected in still_waiting[:-MAX_NUM_WAITING]:
            connected.close()
        self._waiting = still_waiting[-MAX_NUM_WAITING:]
        return presented

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        for _, connected in self._waiting:
            connected.close()
