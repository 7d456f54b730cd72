"""Tensors between processes of one node by name: the owner places them, any process of the same user fetches views.

Uses Mora's tensor store without its servers: a thread in every process answers fetches and gives leases back, while
other threads place and fetch. One lock protects the store, which is made for a single thread. The sockets have no
files and the memory has no names, so a killed process leaves nothing behind.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from mora_runtime.errors import (
    DeadlineExceeded,
    MoraError,
    PeerDied,
    ProtocolError,
    StaleReference,
    TransportError,
    error_from_code,
)
from mora_runtime.limits import MAX_NUM_TENSORS, SLOT_DEADLINE_S
from mora_runtime.tensors.arena import Arena, view_of
from mora_runtime.tensors.marshalling import from_wire, to_wire
from mora_runtime.tensors.tensor_store import Peer, TensorRef, TensorStore
from mora_runtime.wire.codec import decode, encode
from mora_runtime.wire.doorbell import Doorbell
from mora_runtime.wire.messages import Call, Failure, Message, Release, Result

log = logging.getLogger(__name__)
_CREDENTIALS = struct.Struct("3i")
_BACKLOG = 512
_TICK_S = 1.0  # a view that dies in this process frees its slot without a signal, so a full arena looks again
Answer = list[TensorRef] | MoraError


class _EndedLeases(deque[int]):
    """Leases to give back. Finalizers append to it in any thread, and wake the thread that sends them."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def append(self, lease: int, /) -> None:
        super().append(lease)
        self._wake()


@dataclass(eq=False)
class _Channel:
    """A connection to another process, which either fetches from this one or answers its fetches."""

    doorbell: Doorbell
    peer: Peer
    answers: dict[int, Answer | None] = field(default_factory=dict)  # of fetches that a thread waits for

    def send(self, message: Message) -> None:
        self.doorbell.send_frame(encode(message))


class TensorExchange:
    """The exchange of this process.

    Args:
        arena_nbytes, spill_nbytes: limits of its shared memory, see `Arena`; the memory is allocated on demand.
    """

    def __init__(self, *, arena_nbytes: int, spill_nbytes: int) -> None:
        self.address = f"mora-exchange-{secrets.token_hex(16)}"  # of an abstract socket
        self._arena = Arena(arena_nbytes, spill_nbytes=spill_nbytes, wait_s=SLOT_DEADLINE_S)
        self._arena.lenders = self
        self._store = TensorStore(f"exchange-{os.getpid()}.1.{secrets.token_hex(8)}", self._arena)
        self._changed = threading.Condition()  # its lock protects everything below, and the store
        self._placed: dict[str, list[torch.Tensor]] = {}  # by name, each tensor in a slot
        self._channels: list[_Channel] = []
        self._owners: dict[str, _Channel] = {}  # channels on which this process fetches, by address
        self._numbers = itertools.count(1)
        self._is_closing = False
        self._wakes = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"\0{self.address}")
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="mora-exchange", daemon=True)
        self._thread.start()

    def empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Make an uninitialised tensor in a slot; placing the whole tensor copies nothing.

        Raises:
            ArenaFull: no slot came free in time.
        """
        with self._changed:
            return self._arena.empty(shape, dtype)

    def place(self, name: str, tensors: Sequence[torch.Tensor]) -> None:
        """Let other processes fetch these tensors until `remove`; a name that is placed already stays as it is.

        Raises:
            ArenaFull: no slot came free in time.
            BoundsError: a dtype, layout or rank that the store does not carry.
        """
        with self._changed:
            if name not in self._placed:
                self._placed[name] = [self._in_slot(tensor) for tensor in tensors]

    def _in_slot(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every tensor gets its slot here, so that the answering thread never waits for one."""
        slot, meta = self._arena.slot_of(tensor)
        return view_of(slot, meta)

    def remove(self, name: str) -> None:
        """End the name. A slot is free again when the last view of it, in any process, is gone."""
        with self._changed:
            self._placed.pop(name, None)
            self._changed.notify_all()

    def fetch(self, address: str, name: str, num_tensors: int, *, deadline_s: float) -> list[torch.Tensor]:
        """Return views of another process's tensors. All receivers share the memory, so a write reaches each of them.

        Raises:
            PeerDied: the owner has ended.
            StaleReference: the owner has removed the name.
            DeadlineExceeded: the owner did not answer in time.
        """
        tensors: list[torch.Tensor] = []
        while len(tensors) < num_tensors:
            with self._changed:
                if address == self.address:
                    return list(self._named(name))
                tensors += self._fetch_some(address, name, len(tensors), deadline_s)
        return tensors

    def _fetch_some(self, address: str, name: str, first: int, deadline_s: float) -> list[torch.Tensor]:
        """Fetch as many tensors as one message carries, from number `first` on."""
        channel = self._owners.get(address) or self._connect(address)
        number = next(self._numbers)
        channel.answers[number] = None
        try:
            arguments = {"name": name, "first": first}
            channel.send(Call(number, "exchange", "fetch", arguments, None, None, False, channel.peer.released()))
            self._wake()  # the channel may be new, or the message may wait for room in the socket
            self._changed.wait_for(lambda: channel.answers[number] is not None, deadline_s)
        finally:
            answer = channel.answers.pop(number)
        if answer is None:
            raise DeadlineExceeded(f"{channel.peer.name} did not answer a fetch within {deadline_s:.0f} s")
        if isinstance(answer, MoraError):
            raise answer
        if not answer:
            raise ProtocolError(f"{channel.peer.name} has {first} tensors under this name, more were expected")
        return [reference.tensor() for reference in answer]

    def num_live_slots(self) -> int:
        """Slots of this process that a tensor, an object or another process still uses."""
        with self._changed:
            return self._arena.num_live

    def close(self) -> None:
        """End the thread and free all memory; views in this and other processes stay readable."""
        self._is_closing = True
        self._wake()
        self._thread.join()
        with self._changed:
            for channel in list(self._channels):
                self._part(channel)
            self._placed.clear()
            self._listener.close()
            self._store.close()

    def _connect(self, address: str) -> _Channel:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connected.setblocking(False)  # a Unix socket connects at once or not at all
        try:
            connected.connect(f"\0{address}")
            channel = self._opened(connected)
        except OSError as error:
            connected.close()
            raise PeerDied(f"the owner of the tensors has ended, or is on another node ({error.strerror})") from None
        self._owners[address] = channel
        return channel

    def _opened(self, connected: socket.socket) -> _Channel:
        pid, uid, _ = _CREDENTIALS.unpack(
            connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid != os.getuid():
            raise PermissionError(0, f"process {pid} belongs to user {uid}, expected user {os.getuid()}")
        name = f"process {pid}"
        doorbell = Doorbell(connected, name)
        channel = _Channel(doorbell, Peer(name, doorbell, to_release=_EndedLeases(self._wake)))
        self._channels.append(channel)
        return channel

    def _wake(self) -> None:
        os.eventfd_write(self._wakes, 1)

    def _run(self) -> None:
        """The answering thread."""
        while not self._is_closing:
            self._poller().poll()
            with self._changed:
                self._take_wakes()
                self._accept()
                for channel in list(self._channels):
                    self._tend(channel)
                self._changed.notify_all()

    def _poller(self) -> select.poll:
        poller = select.poll()
        poller.register(self._wakes, select.POLLIN)
        poller.register(self._listener, select.POLLIN)
        with self._changed:
            for channel in self._channels:
                events = select.POLLIN | (select.POLLOUT if channel.doorbell.has_unsent else 0)
                poller.register(channel.doorbell.fileno(), events)
        return poller

    def _take_wakes(self) -> None:
        try:
            os.eventfd_read(self._wakes)
        except BlockingIOError:
            return  # another descriptor ended the wait

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:  # nothing waits, or this process has too many open files
                return
            try:
                self._opened(connected)
            except PermissionError as error:
                log.warning("refused a connection: %s", error.strerror)
                connected.close()

    def _tend(self, channel: _Channel) -> None:
        """Do what a channel needs: send what waited, take in what arrived, give leases back, notice its end."""
        try:
            channel.doorbell.flush()
            while (frame := self._read(channel)) is not None:
                self._take_in(channel, decode(frame))
            while channel.peer.to_release and channel.doorbell.is_open:
                channel.send(Release(channel.peer.released()))
        except (TransportError, OSError) as error:
            log.warning("the connection to %s ends: %s", channel.peer.name, error)
            self._part(channel)
            return
        if not channel.doorbell.is_open:
            self._part(channel)

    def _read(self, channel: _Channel) -> bytes | None:
        frame = channel.doorbell.read()
        self._store.receive_segments(channel.peer)
        return frame

    def _take_in(self, channel: _Channel, message: Message) -> None:
        if isinstance(message, Call | Result | Failure | Release):
            channel.peer.take_back(message.released)
        if isinstance(message, Call):
            self._answer(channel, message)
        elif isinstance(message, Result | Failure) and message.id in channel.answers:
            channel.answers[message.id] = self._outcome(channel, message)
        elif isinstance(message, Result):
            self._outcome(channel, message)  # of a fetch that is not awaited any more: its leases end at once

    def _outcome(self, channel: _Channel, message: Result | Failure) -> Answer:
        if isinstance(message, Failure):
            return error_from_code(message.code, f"{channel.peer.name}: {message.text}")
        try:
            received: list[TensorRef] = from_wire(self._store, channel.peer, message.values)["tensors"]
            return received
        except MoraError as error:
            return error

    def _answer(self, channel: _Channel, call: Call) -> None:
        reply: Message
        try:
            name, first = call.arguments["name"], call.arguments["first"]
            tensors = self._named(name)[first : first + MAX_NUM_TENSORS]
            values = to_wire(self._store, channel.peer, {"tensors": tensors})
            reply = Result(call.id, values, None, None, 0, 0, channel.peer.released())
        except MoraError as error:
            reply = Failure(call.id, error.code, str(error), channel.peer.released())
        except (KeyError, TypeError):
            raise ProtocolError(f"expected a name and a number, got {sorted(call.arguments)}") from None
        channel.send(reply)

    def _named(self, name: str) -> list[torch.Tensor]:
        if name not in self._placed:
            raise StaleReference(f"no tensors are placed under {name}; they were removed before the fetch")
        return self._placed[name]

    def _part(self, channel: _Channel) -> None:
        """Forget a process that is gone: its leases end, and fetches from it fail."""
        self._channels.remove(channel)
        self._owners = {address: other for address, other in self._owners.items() if other is not channel}
        for number, answer in channel.answers.items():
            if answer is None:
                channel.answers[number] = PeerDied(f"{channel.peer.name}, the owner of the tensors, has ended")
        self._store.forget(channel.peer)

    def reclaim(self, timeout_s: float) -> bool:
        """For `Arena`: wait until a slot may be free; False when neither a name nor a process uses one."""
        if not self._placed and not any(channel.peer.exports for channel in self._channels):
            return False
        self._changed.wait(min(timeout_s, _TICK_S))
        return True

    def holders(self) -> str:
        """For `Arena`: describe what uses the slots, for an error text."""
        leases = [channel.peer.holding() for channel in self._channels if channel.peer.exports]
        return "; ".join([f"{len(self._placed)} names are placed here", *leases])
