"""The doorbell: the Unix socket of one client and one server that carries calls, answers, segments and device offers.

A packet is one frame (it starts with the protocol's magic), a segment's descriptor with a small header, or a device
offer with a descriptor of its owner's process. All travel in order, so a descriptor arrives before the frame that needs
it. A frame costs one system call on either side, a fifth of what ZeroMQ's threads need to pass it on. ZeroMQ carries
greeting, heartbeats and cancellation, and also the frames if a client asks for that. End-of-file means that the peer
has ended.
"""

from __future__ import annotations

import array
import logging
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass

from mora_runtime.errors import DeadlineExceeded, FrameError, PeerDied
from mora_runtime.limits import DOORBELL_DEADLINE_S, HIGH_WATER_MARK, MAX_FRAME_NBYTES
from mora_runtime.wire.codec import MAGIC
from mora_runtime.wire.device_tensor import DeviceOffer

log = logging.getLogger(__name__)
_PACKET = struct.Struct("!QQ?128s")  # segment id, nbytes, used once, owner
_POOL_MAGIC = b"POOL"
_POOL = struct.Struct("!4s128s")  # magic, owner; a packed DeviceOffer follows, which contains its version
_TIMEOUT = struct.Struct("ll")  # struct timeval
_BUFFER_NBYTES = 1 << 20  # of the kernel, for each direction; the kernel may cap it at its own limit
_MAX_NUM_OFFERS = 256  # received descriptors that wait for `take_offers`
_NUM_REFUSED_LOGGED = 20
_ANCILLARY_NBYTES = socket.CMSG_SPACE(array.array("i").itemsize)


@dataclass(frozen=True)
class OfferedSegment:
    """A segment's descriptor as it arrived; its receiver must close it.

    descriptor: None if it was lost on arrival, because this process has too many open files.
    is_single: the segment stores one tensor and is freed with it, instead of being reused.
    """

    owner: str
    segment_id: int
    nbytes: int
    descriptor: int | None
    is_single: bool = False

    def close(self) -> None:
        """Close the descriptor of an offer that is not used."""
        if self.descriptor is not None:
            os.close(self.descriptor)


@dataclass(frozen=True)
class OfferedPool:
    """A device pool's offer as it arrived; its receiver must close the descriptor.

    process: descriptor of the owner's process (pidfd), which becomes readable when the process ends. None if it was
        lost on arrival, because this process has too many open files.
    """

    owner: str
    offer: DeviceOffer
    process: int | None

    def close(self) -> None:
        """Close the descriptor of an offer that is not used."""
        if self.process is not None:
            os.close(self.process)


Offered = OfferedSegment | OfferedPool


class Doorbell:
    """One end of a doorbell (SOCK_SEQPACKET: packets stay whole). Never blocks."""

    def __init__(self, connected: socket.socket, peer: str) -> None:
        self._socket = connected
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_NBYTES)
        self._peer = peer
        self._buffer = bytearray(MAX_FRAME_NBYTES + 1)  # the extra byte reveals a packet that is too long
        self._window = memoryview(self._buffer)
        self._frames: deque[bytes] = deque()
        self._offers: list[Offered] = []
        self.num_refused = 0  # packets that were neither a frame nor a well-formed offer
        self._unsent: deque[tuple[bytes, int | None]] = deque()  # (packet, duplicated descriptor)
        self.is_open = True

    @classmethod
    def connect(cls, path: str, token: str, peer: str) -> Doorbell:
        """Connect to a server's doorbell and present the token from its WELCOME."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # not settimeout: with it Python connects without waiting, and a full backlog would look like a dead server
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEOUT.pack(round(DOORBELL_DEADLINE_S), 0))
        try:
            made.connect(path)
            made.send(token.encode())
        except OSError as error:
            made.close()
            raise PeerDied(f"{peer}: its doorbell does not answer ({error.strerror}); it has ended") from None
        return cls(made, peer)

    def fileno(self) -> int:
        """The socket's descriptor, for pollers."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """True while packets wait for room in the socket; call `flush` when it is writable."""
        return bool(self._unsent)

    def send_frame(self, frame: bytes) -> None:
        """Send a frame, or queue it until the peer has read earlier ones.

        Raises:
            PeerDied
            DeadlineExceeded: 256 packets are waiting already.
        """
        self._send(frame, None)

    def send_segment(self, offered: OfferedSegment) -> None:
        """Send a descriptor; the caller keeps its own copy. Raises as `send_frame` does."""
        header = _PACKET.pack(offered.segment_id, offered.nbytes, offered.is_single, offered.owner.encode())
        self._send(header, offered.descriptor)

    def send_pool(self, offered: OfferedPool) -> None:
        """Send a device pool's offer; the caller keeps its own descriptor. Raises as `send_frame` does."""
        self._send(_POOL.pack(_POOL_MAGIC, offered.owner.encode()) + offered.offer.pack(), offered.process)

    def _send(self, data: bytes, descriptor: int | None) -> None:
        if self._unsent:
            self.flush()
        if not self._unsent and self._try(data, descriptor):
            return
        if len(self._unsent) >= HIGH_WATER_MARK:
            raise DeadlineExceeded(f"{self._peer} takes no more messages; its queue is full")
        self._unsent.append((data, None if descriptor is None else os.dup(descriptor)))

    def _try(self, data: bytes, descriptor: int | None) -> bool:
        try:
            if descriptor is None:
                self._socket.send(data)
            else:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())]
                self._socket.sendmsg([data], rights)
        except BlockingIOError:
            return False
        except OSError:
            self.is_open = False
            raise PeerDied(f"{self._peer} has ended; see its log in the run") from None
        return True

    def flush(self) -> None:
        """Send queued packets, as many as the socket has room for."""
        while self._unsent and self._try(*self._unsent[0]):
            _, descriptor = self._unsent.popleft()
            if descriptor is not None:
                os.close(descriptor)

    def read(self) -> bytes | None:
        """Return the next frame that has arrived, or None, without waiting; `is_open` turns False at end-of-file."""
        while self.is_open and not self._frames and len(self._offers) < _MAX_NUM_OFFERS and self._read_packet():
            pass
        return self._frames.popleft() if self._frames else None

    @property
    def has_frames(self) -> bool:
        """True while frames that came out of the socket wait for `read`."""
        return bool(self._frames)

    @property
    def has_offers(self) -> bool:
        """True while offers wait for `take_offers`."""
        return bool(self._offers)

    def take_offers(self) -> list[Offered]:
        """Return and forget the segments and device pools that were offered so far."""
        offers, self._offers = self._offers, []
        return offers

    def seek_offers(self) -> list[Offered]:
        """Read further from the socket for offers; frames that come before them are kept for `read`."""
        while self.is_open and not self._offers and len(self._frames) < HIGH_WATER_MARK and self._read_packet():
            pass
        return self.take_offers()

    def _read_packet(self) -> bool:
        """Read one packet from the socket; False when there is none."""
        try:
            nbytes, ancillary, flags, _ = self._socket.recvmsg_into(
                [self._buffer], _ANCILLARY_NBYTES, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            self.is_open = False
            return False
        descriptors = _descriptors(ancillary) if ancillary else []
        is_lost = not descriptors and bool(flags & socket.MSG_CTRUNC)
        if not descriptors and not is_lost and nbytes > 0 and self._window[: len(MAGIC)] == MAGIC:
            self._frames.append(bytes(self._window[:nbytes]))
        elif not descriptors and nbytes == 0:
            self.is_open = False
        elif len(descriptors) == 1 or is_lost:
            self._take_offer(nbytes, None if is_lost else descriptors[0])
        else:
            self._refuse(descriptors)
        return self.is_open

    def _take_offer(self, nbytes: int, descriptor: int | None) -> None:
        """Keep the offer that was read last; a malformed one is refused."""
        try:
            if nbytes == _PACKET.size:
                segment_id, size, is_single, owner = _PACKET.unpack_from(self._buffer)
                self._offers.append(OfferedSegment(_name(owner), segment_id, size, descriptor, is_single))
                return
            if nbytes < _POOL.size or self._window[: len(_POOL_MAGIC)] != _POOL_MAGIC:
                raise FrameError("a packet with a descriptor that is no offer")
            _, owner = _POOL.unpack_from(self._buffer)
            offer = DeviceOffer.unpack(bytes(self._window[_POOL.size : nbytes]))
            self._offers.append(OfferedPool(_name(owner), offer, descriptor))
        except FrameError as error:
            if self.num_refused < _NUM_REFUSED_LOGGED:
                log.warning("%s: %s", self._peer, error)
            self._refuse([] if descriptor is None else [descriptor])

    def _refuse(self, descriptors: list[int]) -> None:
        """Drop a packet that is not of this protocol; the message that refers to it will fail."""
        self.num_refused += 1
        close_all(descriptors)

    def close(self) -> None:
        """Close this end; the peer sees end-of-file."""
        self.is_open = False
        for offered in self._offers:
            offered.close()
        close_all([descriptor for _, descriptor in self._unsent if descriptor is not None])
        self._offers.clear()
        self._unsent.clear()
        self._frames.clear()
        self._socket.close()


def _name(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode("ascii", "replace")


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def close_all(descriptors: list[int]) -> None:
    """Close descriptors that are not used."""
    for descriptor in descriptors:
        os.close(descriptor)
