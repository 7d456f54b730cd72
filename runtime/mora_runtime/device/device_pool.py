"""Tensors in device memory that two processes share: the owner's pool, and a peer's view of it.

The owner of tensors on a device makes one `DevicePool` and sends its `offer` to each peer once; each tensor is then
sent as a `DeviceTensor`. A peer opens the offer once, as an `OpenedPool`; if that raises `DeviceUnavailable`, the two
use slots of the host arena, made fast by `PinnedStaging`. Objects belong to one thread; finalizers may run in any
thread and only append to a deque.

Order between the two ends, without an unbounded wait for a process that was killed:

- owner -> reader: `export` records an inter-process event behind the work queued so far; `view` polls the event on the
  host, up to a deadline, and returns the tensor once it has happened. A wait queued in the reader's stream would save
  the polling, but if the owner is killed, the event never fires and the reader's whole context hangs with that stream.
- reader -> owner: when the last view dies, the reader marks its own stream, and `collect` returns the lease once the
  work before the mark has run. So a RELEASE that arrives means an idle slot, and no event travels back. A killed reader
  was only reading, and its results are lost with it, so its slots can be reused.
- owner -> owner: a freed slot is marked in the same way before it is reused.

A mark covers the stream that was current when the slot was taken or the view was made; work on another stream must be
joined to that one before the tensor is freed, as with torch's own allocator.

When an owner dies, no new view of its pool is made (`PeerDied`). CUDA's documentation leaves undefined whether existing
views stay readable; `tests/gpu` tests what the driver does. So results computed from a dead owner's pool should be
discarded with its generation.
"""

from __future__ import annotations

import itertools
import secrets
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch

from mora_runtime.device.dlpack import tensor_over
from mora_runtime.device.free_ranges import FreeRanges
from mora_runtime.device.ipc_device import Event, IpcDevice
from mora_runtime.errors import ArenaFull, BoundsError, DeadlineExceeded, DeviceFailed, DeviceUnavailable, PeerDied
from mora_runtime.limits import (
    DEVICE_ALIGNMENT_NBYTES,
    DEVICE_DEADLINE_S,
    DEVICE_GRANULE_NBYTES,
    NUM_DEVICE_EVENTS,
)
from mora_runtime.wire.device_tensor import DeviceOffer, DeviceTensor
from mora_runtime.wire.tensor_meta import DTYPE_CODES, TensorMeta, check_bounds, checked_meta, meta_of

T = TypeVar("T")


class Afterwards(Generic[T]):
    """Items that become free once the work queued on their stream has run."""

    def __init__(self, device: IpcDevice) -> None:
        self._device = device
        self._ended: deque[tuple[int, T]] = deque()  # (stream, thing); finalizers append
        self._running: list[tuple[Event, list[T]]] = []  # (event, things that ended before it)
        self._spare: list[Event] = []

    def append(self, stream: int, thing: T) -> None:
        """Add an item whose use on `stream` has ended. May be called in any thread at any moment."""
        self._ended.append((stream, thing))

    def __len__(self) -> int:
        return len(self._ended) + sum(len(things) for _, things in self._running)

    def collect(self) -> list[T]:
        """Return, each once, the items whose stream has passed the point at which their use ended."""
        self._mark()
        running, self._running = self._running, []
        free: list[T] = []
        for event, things in running:
            if self._device.happened(event):
                free.extend(things)
                self._spare.append(event)
            else:
                self._running.append((event, things))
        return free

    def wait(self, deadline_s: float) -> None:
        """Wait until the oldest items are free, at most until the deadline."""
        self._mark()
        if self._running:
            for _ in self._device.wait(self._running[0][0], deadline_s):
                pass

    def _mark(self) -> None:
        by_stream: dict[int, list[T]] = defaultdict(list)
        while self._ended:
            stream, thing = self._ended.popleft()
            by_stream[stream].append(thing)
        for stream, things in by_stream.items():
            event = self._spare.pop() if self._spare else self._device.new_event()
            self._device.record(event, stream)
            self._running.append((event, things))

    def close(self) -> None:
        """Destroy the events; call it once nothing is running."""
        while self._spare:
            self._device.destroy(self._spare.pop())


class DeviceSlot:
    """A piece of a pool that stores one tensor; in use as long as this object exists."""

    __slots__ = ("__weakref__", "capacity_nbytes", "offset")

    def __init__(self, offset: int, capacity_nbytes: int) -> None:
        self.offset = offset
        self.capacity_nbytes = capacity_nbytes


_own_pools: weakref.WeakValueDictionary[int, DevicePool] = weakref.WeakValueDictionary()


class DevicePool:
    """Device memory of one process, allocated once, that peers can open.

    Args:
        device: where the memory is.
        nbytes: size of the pool, all of it allocated now; rounded up to 2 MiB.
        wait_s: how long a request waits for work on freed slots to end when no other slot is free.

    Raises:
        DeviceFailed: a CUDA call failed, for instance because not enough memory is free.
    """

    def __init__(self, device: IpcDevice, nbytes: int, *, wait_s: float | None = None) -> None:
        self._wait_s = DEVICE_DEADLINE_S if wait_s is None else wait_s
        self.device = device
        self.nbytes = _rounded(max(1, nbytes), DEVICE_GRANULE_NBYTES)
        self._free = FreeRanges(self.nbytes)
        self._returned: Afterwards[tuple[int, int]] = Afterwards(device)  # (offset, capacity)
        self._slots: weakref.WeakValueDictionary[int, DeviceSlot] = weakref.WeakValueDictionary()  # by offset
        self._events: list[Event] = []
        self._last_event: Event | None = None  # the one recorded last
        self._next_event = itertools.cycle(range(NUM_DEVICE_EVENTS))
        self._address = device.allocate(self.nbytes)
        try:
            self.offer = self._make_offer()
        except BaseException:
            self._give_back()
            raise
        _own_pools[self.offer.pool] = self

    def _make_offer(self) -> DeviceOffer:
        for _ in range(NUM_DEVICE_EVENTS):
            self._events.append(self.device.new_event(shared=True))
        events = tuple(self.device.event_handle(event) for event in self._events)
        memory = self.device.memory_handle(self._address)
        return DeviceOffer(secrets.randbits(64), self.device.uuid, self.nbytes, memory, events)

    @property
    def num_live(self) -> int:
        """Slots in use."""
        return len(self._slots)

    def empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Make an uninitialised tensor in a slot; exporting the whole tensor copies nothing.

        Raises:
            ArenaFull: no slot is left, and none came free in time.
            BoundsError: a dtype or rank that the store does not carry.
        """
        meta = checked_meta(DTYPE_CODES.get(dtype, -1), tuple(shape))
        return self.view(self._take(meta.nbytes), meta)

    def view(self, slot: DeviceSlot, meta: TensorMeta, lease: object = None) -> torch.Tensor:
        """Make a tensor over the start of a slot; it keeps the slot, the pool and `lease` alive."""
        check_bounds(meta, offset=0, nbytes=meta.nbytes, segment_nbytes=slot.capacity_nbytes)
        return tensor_over(self._address + slot.offset, meta, self.device.torch_device, (slot, self, lease))

    def place(self, tensor: torch.Tensor) -> tuple[DeviceSlot, TensorMeta]:
        """Return the tensor's slot: its own if it already starts one of this pool's slots, else a new one with a copy.

        Raises:
            ArenaFull: no slot is left, and none came free in time.
            BoundsError: a dtype, layout or rank that the store does not carry.
        """
        meta = meta_of(tensor)
        if tensor.device == self.device.torch_device and tensor.is_contiguous() and meta.nbytes:
            slot = self._slots.get(tensor.data_ptr() - self._address)
            if slot is not None and meta.nbytes <= slot.capacity_nbytes:
                return slot, meta
        slot = self._take(meta.nbytes)
        self.view(slot, meta).copy_(tensor.detach())
        return slot, meta

    def export(self, slot: DeviceSlot, meta: TensorMeta) -> DeviceTensor:
        """Describe a tensor for peers; the caller must keep `slot` until each peer has released it.

        An event is reused after 64 exports, maybe on another stream. The stream then waits for the event's earlier
        record first; otherwise the later record could end a peer's wait for the earlier one too soon.
        """
        index = next(self._next_event)
        stream = self.device.stream()
        self.device.follow(stream, self._events[index])
        self.device.record(self._events[index], stream)
        self._last_event = self._events[index]
        return DeviceTensor(self.offer.pool, slot.offset, meta.nbytes, DTYPE_CODES[meta.dtype], meta.shape, index)

    @property
    def is_writing(self) -> bool:
        """True while the work that writes the tensor exported last has not run.

        Raises:
            DeviceFailed: that work failed, and the device with it.
        """
        if self._last_event is not None and self.device.happened(self._last_event):
            self._last_event = None
        return self._last_event is not None

    def collect(self) -> bool:
        """Take back freed slots whose work has run; False when there is none to wait for."""
        for offset, nbytes in self._returned.collect():
            self._free.give(offset, nbytes)
        return bool(self._returned)

    def _take(self, nbytes: int) -> DeviceSlot:
        capacity = _rounded(max(1, nbytes), DEVICE_ALIGNMENT_NBYTES)
        offset = self._find(capacity)
        slot = DeviceSlot(offset, capacity)
        self._slots[offset] = slot
        ended = weakref.finalize(slot, self._returned.append, self.device.stream(), (offset, capacity))
        ended.atexit = False
        return slot

    def _find(self, capacity: int) -> int:
        deadline = time.monotonic() + self._wait_s
        while True:
            self.collect()
            found = self._free.take(capacity)
            if found is not None:
                return found
            remaining_s = deadline - time.monotonic()
            if not self._returned or remaining_s <= 0:
                raise ArenaFull(
                    f"no {capacity} bytes in one piece left on {self.device.torch_device}: {self.num_live} slots of a "
                    f"pool of {self.nbytes} bytes are in use; enlarge the pool, or free tensors sooner"
                )
            self._returned.wait(remaining_s)

    def close(self) -> bool:
        """Free the memory unless a slot is in use (False: call again). Peers must have closed the pool before."""
        self.collect()
        if self.num_live or self._returned:
            return False
        self._give_back()
        return True

    def _give_back(self) -> None:
        self._last_event = None
        while self._events:
            self.device.destroy(self._events.pop())
        self._returned.close()
        if self._address:
            self.device.free(self._address)
            self._address = 0


def _rounded(nbytes: int, unit: int) -> int:
    return -(-nbytes // unit) * unit


class OpenedPool(Generic[T]):
    """A peer's pool, opened in this process: the handle is opened once, and views are made by offset.

    Args:
        device: where this process needs the tensors.
        owner: name of the peer, for errors.
        is_alive: whether the owner is alive; called before and while waiting.

    Raises:
        DeviceUnavailable: use host memory: the pool is this process's own, its device is hidden or out of reach, or
            CUDA cannot share between the two processes (containers, users).
        BoundsError: the allocation is smaller than the offer says.
    """

    def __init__(self, offer: DeviceOffer, device: IpcDevice, *, owner: str, is_alive: Callable[[], bool]) -> None:
        if offer.pool in _own_pools:
            raise DeviceUnavailable(f"{owner} offers a pool of this process itself; its slots need no opening")
        self.offer = offer
        self.device = device
        self.owner = owner
        self._is_alive = is_alive
        self._events: dict[int, Event] = {}
        self._ended: Afterwards[T] = Afterwards(device)  # leases
        self._num_leases = 0
        self._route = device.route(offer.device_uuid)
        if self._route == "host memory":
            raise DeviceUnavailable(f"{owner}: its device cannot be reached from {device.torch_device} here")
        try:
            self._address = device.open_memory(offer.memory_handle, offer.nbytes)
        except DeviceFailed as error:
            raise DeviceUnavailable(f"{owner}: its pool cannot be opened ({error}); use host memory") from None

    def view(self, sent: DeviceTensor, lease: T, *, deadline_s: float) -> torch.Tensor:
        """Return the tensor, which must not be written: the memory itself on the same device, else a copy.

        `collect` returns `lease`, any object, once the tensor and all work on it are done, but not if this raises.

        Raises:
            BoundsError: the tensor is outside the pool, or names a pool or an event that was not offered.
            PeerDied, DeadlineExceeded: the work that writes it did not end.
            DeviceFailed: the event cannot be opened.
        """
        self._require_owner()
        meta = self._checked(sent)
        self._wait(sent.event, deadline_s)
        held = _Held(self)
        tensor = self._tensor(self._address + sent.offset, meta, held)
        weakref.finalize(held, self._ended.append, self.device.stream(), lease).atexit = False
        self._num_leases += 1
        return tensor

    def _checked(self, sent: DeviceTensor) -> TensorMeta:
        if sent.pool != self.offer.pool or not self._address:
            raise BoundsError(f"{self.owner} names a pool that is closed or that it does not own")
        if not 0 <= sent.event < len(self.offer.event_handles):
            raise BoundsError(f"{self.owner} names event {sent.event} of {len(self.offer.event_handles)}")
        meta = checked_meta(sent.dtype, sent.shape)
        check_bounds(meta, offset=sent.offset, nbytes=sent.nbytes, segment_nbytes=self.offer.nbytes)
        return meta

    def _tensor(self, address: int, meta: TensorMeta, held: object) -> torch.Tensor:
        if self._route == "same device":
            return tensor_over(address, meta, self.device.torch_device, held)
        copy = torch.empty(meta.shape, dtype=meta.dtype, device=self.device.torch_device)
        self.device.copy(copy.data_ptr(), address, meta.nbytes, self.device.stream())
        return copy

    def _wait(self, index: int, deadline_s: float) -> None:
        if index not in self._events:
            self._events[index] = self.device.open_event(self.offer.event_handles[index])
        for happened in self.device.wait(self._events[index], deadline_s):
            if happened:
                return
            self._require_owner()
        raise DeadlineExceeded(f"{self.owner}: the work that writes a tensor did not end within {deadline_s:.0f} s")

    def _require_owner(self) -> None:
        if not self._is_alive():
            raise PeerDied(f"{self.owner} has ended, and its device memory with it")

    @property
    def has_owner(self) -> bool:
        """False once the process that owns the memory has ended."""
        return self._is_alive()

    @property
    def is_ending(self) -> bool:
        """True while work on views that are gone has not been seen to end."""
        return bool(self._ended)

    def collect(self) -> list[T]:
        """Return the leases to give back now. Call it before every message and when idle."""
        ended = self._ended.collect()
        self._num_leases -= len(ended)
        return ended

    def close(self) -> bool:
        """Close the handle unless a lease is open (False: `collect`, then call again). Afterwards `view` fails."""
        if self._address and not self._num_leases:
            while self._events:
                self.device.destroy(self._events.popitem()[1])
            self._ended.close()
            self.device.close_memory(self._address)
            self._address = 0
        return not self._address


class _Held:
    """Lives as long as a view; keeps the mapping's owner alive."""

    __slots__ = ("__weakref__", "pool")

    def __init__(self, pool: object) -> None:
        self.pool = pool
