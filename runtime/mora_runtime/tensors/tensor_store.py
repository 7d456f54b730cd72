"""Tensors between one process and its peers: placing, exporting, resolving, leasing, forwarding.

A lease is between two direct peers. A peer's `exports` contains everything that this process has leased to it: own
slots, and references that this process received and forwarded. An export keeps its object alive until the peer releases
it, so a forwarded tensor stays leased along the whole path back to its owner without a reference count.

A tensor on a GPU is sent in device memory if its reader has opened this process's device pool, else it is staged
through shared memory. A process without a device passes offers of pools and references to their tensors on.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
import weakref
from collections import deque
from dataclasses import dataclass, field, replace

import torch

from mora_runtime.device.device_plane import DevicePlane
from mora_runtime.device.device_pool import DeviceSlot
from mora_runtime.errors import (
    BoundsError,
    DeviceUnavailable,
    MoraError,
    PeerDied,
    SegmentLost,
    SegmentRefused,
    StaleReference,
)
from mora_runtime.limits import (
    ALIGNMENT_NBYTES,
    DEVICE_WORK_DEADLINE_S,
    MAX_NUM_DEVICE_POOLS,
    MAX_NUM_DEVICE_READERS,
    MAX_NUM_RELEASES,
    MAX_NUM_SEGMENTS,
)
from mora_runtime.tensors.arena import Arena, Slot, leased_view
from mora_runtime.tensors.peer_pool import OwnerProcess, PeerPool
from mora_runtime.tensors.segment import Segment, check_descriptor
from mora_runtime.tensors.ways import Ways
from mora_runtime.trace import tracing
from mora_runtime.wire.device_tensor import DeviceTensor
from mora_runtime.wire.doorbell import Doorbell, Offered, OfferedPool, OfferedSegment
from mora_runtime.wire.messages import InlineTensor, PoolOpened, WireDeviceTensor, WireTensor
from mora_runtime.wire.tensor_meta import DTYPE_CODES, DTYPES, TensorMeta, check_bounds, checked_meta, meta_for, shaped

log = logging.getLogger(__name__)


class PeerSegment:
    """A segment that one peer offered: its descriptor is checked at once, and mapped on first read.

    References to its tensors keep it alive, so a peer's tensors stay readable after the peer's death.
    """

    def __init__(self, offered: OfferedSegment) -> None:
        if offered.descriptor is None:
            raise SegmentLost("a segment's descriptor was lost, too many open files in this process; raise `ulimit -n`")
        check_descriptor(offered.descriptor, offered.nbytes)
        self.descriptor = offered.descriptor
        self.nbytes = offered.nbytes
        self.is_single = offered.is_single
        self._mapped: Segment | None = None
        weakref.finalize(self, os.close, offered.descriptor).atexit = False

    def mapped(self) -> Segment:
        """The mapping, made on first use."""
        if self._mapped is None:
            self._mapped = Segment.attach(self.descriptor, self.nbytes)
        return self._mapped


@dataclass
class Peer:
    """Everything that this process shares with one other process."""

    name: str
    doorbell: Doorbell | None = None
    # lease -> what it keeps alive
    exports: dict[int, Slot | DeviceSlot | LeasedRef | DeviceRef] = field(default_factory=dict)
    announced: set[tuple[str, int]] = field(default_factory=set)  # segments whose descriptor the peer has
    # (owner, segment) -> a segment that this peer, and no other, may refer to
    segments: dict[tuple[str, int], PeerSegment | SegmentRefused] = field(default_factory=dict)
    pools: dict[tuple[str, int], PeerPool] = field(default_factory=dict)  # the same for device pools
    new_pools: deque[PeerPool] = field(default_factory=deque)  # that `take_new_pools` has not returned yet
    announced_pools: set[tuple[str, int]] = field(default_factory=set)  # whose offers the peer has
    # identities of processes that have opened this process's device pool, as far as this peer has told
    readers: dict[str, None] = field(default_factory=dict)
    to_release: deque[int] = field(default_factory=deque)  # ended leases from the peer; finalizers append
    lease_numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    sent_nbytes: int = 0  # of tensors leased to the peer, copied or not

    def holding(self) -> str:
        """Describe the peer's leases on this process's slots, for an error text."""
        slots = [export for export in self.exports.values() if isinstance(export, Slot | DeviceSlot)]
        nbytes = sum(slot.capacity_nbytes for slot in slots)
        return f"{self.name} {len(self.exports)} tensors, {nbytes} bytes"

    def released(self) -> list[int]:
        """Take the leases to give back with the next message, at most 1,024."""
        count = min(len(self.to_release), MAX_NUM_RELEASES)
        return [self.to_release.popleft() for _ in range(count)]

    def take_new_pools(self) -> list[PeerPool]:
        """Return, each once, the device pools that the peer has offered."""
        taken = list(self.new_pools)
        self.new_pools.clear()
        return taken

    def take_back(self, leases: list[int]) -> None:
        """End the peer's leases on exports of this process; numbers that are not its leases are ignored."""
        for lease in leases:
            self.exports.pop(lease, None)


class TensorRef:
    """A reference to a tensor that another process sent. A small value; nothing is mapped before `tensor`.

    It can be passed as an argument to any client (bytes of large tensors are not touched), or viewed with `tensor`.
    """

    def __init__(self, meta: TensorMeta) -> None:
        self.meta = meta

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.meta.shape

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the tensor."""
        return self.meta.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.meta.nbytes

    def tensor(self, device: torch.device | str | None = None) -> torch.Tensor:
        """Return a zero-copy view in shared memory, which must not be written; with a device, a copy on it.

        Raises:
            SegmentRefused, BoundsError: the peer's segment cannot be mapped safely.
        """
        view = self._view()
        return view if device is None else view.to(device)

    def row(self, index: int) -> TensorRef | None:
        """Return a reference to one sample of a batch, (1, ...), which keeps the batch leased. Any other server can
        read it; the tensor's owner takes only the whole batch back.

        None if it cannot be passed on by itself: it is inside a frame, on a GPU, or not aligned in its segment.
        """
        return None

    def _view(self) -> torch.Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype}, {list(self.shape)})"


class LeasedRef(TensorRef):
    """A tensor in another process's segment. The lease ends with the last reference, view or graph on it."""

    def __init__(self, segment: PeerSegment, lease: _Lease, wire: WireTensor, meta: TensorMeta) -> None:
        super().__init__(meta)
        self.wire = wire
        self.segment = segment
        self._lease = lease

    def row(self, index: int) -> TensorRef | None:
        """See `TensorRef`."""
        if not self.shape or not 0 <= index < self.shape[0]:
            raise BoundsError(f"expected a row of {self!r}, got {index}")
        meta = meta_for(self.dtype, (1, *self.shape[1:]))
        offset = self.wire.offset + index * meta.nbytes
        if offset % ALIGNMENT_NBYTES:
            return None
        wire = replace(self.wire, offset=offset, nbytes=meta.nbytes, shape=meta.shape)
        return LeasedRef(self.segment, self._lease, wire, meta)

    def _view(self) -> torch.Tensor:
        return leased_view(self.segment.mapped(), self.wire.offset, self.meta, self)


class DeviceRef(TensorRef):
    """A tensor in another process's device pool. The lease ends with the last reference, and with the work on views."""

    def __init__(self, pool: PeerPool, peer: Peer, wire: WireDeviceTensor, meta: TensorMeta) -> None:
        super().__init__(meta)
        self.wire = wire
        self.pool = pool
        self._lease = _Lease(peer, wire.lease)

    def _view(self) -> torch.Tensor:
        if self.pool.opened is None:
            raise DeviceUnavailable(
                f"a tensor is in device memory of {self.wire.owner}, which this process has not opened and can only "
                "pass on; the caller named another process as its reader"
            )
        sent = DeviceTensor(
            self.wire.pool, self.wire.offset, self.wire.nbytes, self.wire.dtype, self.wire.shape, self.wire.event
        )
        return self.pool.opened.view(sent, self._lease, deadline_s=DEVICE_WORK_DEADLINE_S)


class InlineRef(TensorRef):
    """A small tensor that came inside the frame; this process owns its bytes."""

    def __init__(self, wire: InlineTensor) -> None:
        super().__init__(meta_for(DTYPES[wire.dtype], wire.shape))
        self.wire = wire

    def _view(self) -> torch.Tensor:
        if not self.wire.data:
            return torch.empty(self.meta.shape, dtype=self.meta.dtype)
        return shaped(torch.frombuffer(bytearray(self.wire.data), dtype=self.meta.dtype), self.meta)


class _Lease:
    """Releases a lease with the next message to the peer once nothing here refers to it."""

    __slots__ = ("_number", "_to_release")

    def __init__(self, peer: Peer, number: int) -> None:
        self._to_release = peer.to_release
        self._number = number

    def __del__(self) -> None:
        self._to_release.append(self._number)


class TensorStore:
    """The tensor store of this process.

    Args:
        identity: `name.generation.nonce`, never reused; owner of its segments.
        arena: where its own tensors are placed.

    Attributes:
        plane: device memory that it shares; None sends every tensor through host memory.
    """

    def __init__(self, identity: str, arena: Arena) -> None:
        self.identity = identity
        self.arena = arena
        self.plane: DevicePlane | None = None
        self.ways = Ways()
        self._process: OwnerProcess | None = None

    def share(self, plane: DevicePlane) -> None:
        """Share this device memory with peers whose doorbells are connected from now on."""
        self.plane = plane
        self._process = OwnerProcess(os.pidfd_open(os.getpid()))

    def export(
        self, peer: Peer, value: torch.Tensor | TensorRef, *, reader: str | None = None
    ) -> WireTensor | WireDeviceTensor:
        """Lease a tensor, or a reference received from another process, to a peer.

        Args:
            reader: identity of the process that will read it, if the peer only passes it on.

        Raises:
            ArenaFull, BoundsError: it cannot be placed.
            PeerDied: the descriptor cannot be sent to the peer.
        """
        if isinstance(value, LeasedRef):
            wire = value.wire
            if tracing.active is not None:
                tracing.active.move("reference", value.nbytes, wire.owner, peer.name)
            self.ways.count_shared(value.nbytes)
            return self._leased(peer, value, value.segment, wire.owner, wire.segment, wire.offset, value.meta)
        if isinstance(value, DeviceRef):
            return self._passed_on(peer, value)
        tensor = value.tensor() if isinstance(value, TensorRef) else value
        started_ns = time.monotonic_ns()
        if self.plane is not None and self.plane.has(tensor):
            placed = self._in_pool(self.plane, peer, tensor, reader or peer.name)
            if placed is not None:
                return placed
            slot, meta = self.arena.slot_of(tensor, self._to_host)
        else:
            slot, meta = self.arena.slot_of(tensor)
        kind = self._move_kind(slot, tensor)
        if kind == "staged":
            self.ways.count_staged(meta.nbytes)
        else:
            self.ways.count_shared(meta.nbytes)
        if tracing.active is not None:
            spent_ns = time.monotonic_ns() - started_ns
            tracing.active.move(kind, meta.nbytes, self.identity, peer.name, spent_ns=spent_ns)
        return self._leased(peer, slot, slot.segment, self.identity, slot.segment_id, slot.offset, meta)

    def _move_kind(self, slot: Slot, tensor: torch.Tensor) -> tracing.MoveKind:
        if not tensor.is_cpu or (self.plane is not None and self.plane.has(tensor)):
            return "staged"
        if slot.segment.is_single:
            return "spilled"
        return "resident" if tensor.data_ptr() == slot.segment.address + slot.offset else "copied"

    def _in_pool(self, plane: DevicePlane, peer: Peer, tensor: torch.Tensor, reader: str) -> WireDeviceTensor | None:
        """Lease a tensor in device memory; None if its reader has not opened the pool, or the pool is full."""
        if reader not in peer.readers:
            return None
        started_ns = time.monotonic_ns()
        found = plane.place(tensor)
        if found is None:
            self.ways.num_pool_full += 1
            return None
        slot, meta = found
        sent = plane.export(slot, meta)
        self.ways.count_device(meta.nbytes)
        if tracing.active is not None:
            spent_ns = time.monotonic_ns() - started_ns
            tracing.active.move("device", meta.nbytes, self.identity, peer.name, spent_ns=spent_ns)
        return self._leased_in_pool(peer, slot, self.identity, sent)

    def _passed_on(self, peer: Peer, value: DeviceRef) -> WireDeviceTensor:
        """Lease a reference to another process's device memory."""
        wire = value.wire
        self.announce_pool(peer, value.pool)
        if tracing.active is not None:
            tracing.active.move("reference", value.nbytes, wire.owner, peer.name)
        self.ways.count_device(value.nbytes)
        sent = DeviceTensor(wire.pool, wire.offset, wire.nbytes, wire.dtype, wire.shape, wire.event)
        return self._leased_in_pool(peer, value, wire.owner, sent)

    def _leased_in_pool(
        self, peer: Peer, held: DeviceSlot | DeviceRef, owner: str, sent: DeviceTensor
    ) -> WireDeviceTensor:
        lease = next(peer.lease_numbers)
        peer.exports[lease] = held
        peer.sent_nbytes += sent.nbytes
        return WireDeviceTensor(lease, owner, sent.pool, sent.event, sent.offset, sent.nbytes, sent.dtype, sent.shape)

    def _to_host(self, slot: Slot, window: torch.Tensor, tensor: torch.Tensor) -> None:
        assert self.plane is not None
        self.plane.to_host(tensor, window, None if slot.segment.is_single else slot.segment.buffer)

    def finish_copies(self) -> None:
        """Wait until tensors that were exported are in shared memory. Call it before the message that names them.

        Raises:
            DeadlineExceeded, DeviceFailed
        """
        if self.plane is not None:
            self.plane.finish()

    def local(self, value: torch.Tensor | TensorRef, device: torch.device) -> torch.Tensor:
        """Return a received tensor on a device: in place if it is there already, else as a copy.

        Raises:
            SegmentRefused, BoundsError: the peer's segment cannot be mapped safely.
            PeerDied, DeadlineExceeded, DeviceUnavailable, DeviceFailed: a tensor in device memory cannot be read.
        """
        tensor = value.tensor() if isinstance(value, TensorRef) else value
        if tensor.device == device:
            return tensor
        is_staged = self.plane is not None and self.plane.device.torch_device == device
        if is_staged and self.plane is not None and isinstance(value, LeasedRef) and not value.segment.is_single:
            segment = value.segment.mapped()
            return self.plane.to_device(tensor, segment.buffer, segment)
        return tensor.to(device)

    def collect(self) -> None:
        """Prepare the leases of device memory that has been read for the next message. Call it also when idle.

        Raises:
            DeviceFailed: the device is lost.
        """
        if self.plane is not None:
            self.plane.collect()

    def _leased(
        self, peer: Peer, held: Slot | LeasedRef, segment: Segment | PeerSegment, owner: str, segment_id: int,
        offset: int, meta: TensorMeta,
    ) -> WireTensor:  # fmt: skip
        self._announce(peer, owner, segment_id, segment)
        lease = next(peer.lease_numbers)
        peer.exports[lease] = held
        peer.sent_nbytes += meta.nbytes
        return WireTensor(lease, owner, segment_id, offset, meta.nbytes, DTYPE_CODES[meta.dtype], meta.shape)

    def _announce(self, peer: Peer, owner: str, segment_id: int, segment: Segment | PeerSegment) -> None:
        """Send the peer the segment's descriptor, once; the segment's owner needs none."""
        key = (owner, segment_id)
        if key in peer.announced or peer.name == owner:
            return
        if peer.doorbell is None:
            raise PeerDied(f"{peer.name} has no doorbell: it has not finished its greeting, or it has ended")
        offered = OfferedSegment(owner, segment_id, segment.nbytes, segment.descriptor, segment.is_single)
        peer.doorbell.send_segment(offered)
        if not segment.is_single:  # the receiver forgets a single-tensor segment with its tensor
            peer.announced.add(key)

    def offer_own_pool(self, peer: Peer) -> None:
        """Offer this process's device pool to a peer whose doorbell has just been connected.

        Raises:
            PeerDied, DeadlineExceeded: the offer cannot be sent.
        """
        if self.plane is not None and self._process is not None and peer.doorbell is not None:
            peer.doorbell.send_pool(OfferedPool(self.identity, self.plane.offer, self._process.descriptor))

    def announce_pool(self, peer: Peer, pool: PeerPool) -> None:
        """Pass another process's pool on to a peer, once; the pool's owner needs no offer.

        Raises:
            PeerDied, DeadlineExceeded: the offer cannot be sent.
        """
        if pool.key in peer.announced_pools or peer.name == pool.owner:
            return
        if peer.doorbell is None:
            raise PeerDied(f"{peer.name} has no doorbell: it has not finished its greeting, or it has ended")
        peer.doorbell.send_pool(pool.offered())
        peer.announced_pools.add(pool.key)

    def add_reader(self, peer: Peer, opened: PoolOpened) -> bool:
        """Note who can read tensors in this process's pool; False if the message is about another pool."""
        if self.plane is None or (opened.owner, opened.pool) != (self.identity, self.plane.offer.pool):
            return False
        peer.readers[opened.reader] = None
        while len(peer.readers) > MAX_NUM_DEVICE_READERS:
            del peer.readers[next(iter(peer.readers))]
        return True

    def resolve(self, peer: Peer, wire: WireTensor | WireDeviceTensor) -> TensorRef | torch.Tensor:
        """Resolve a peer's wire tensor to a reference, or to this process's own tensor that came back.

        Raises:
            StaleReference: it names an own slot on which the peer has no lease, or a segment or pool that was never
                offered.
            BoundsError, SegmentRefused
        """
        meta = checked_meta(wire.dtype, wire.shape)
        if isinstance(wire, WireDeviceTensor):
            return self._resolve_device(peer, wire, meta)
        if wire.owner == self.identity:
            return self._own(peer, wire, meta)
        segment = self._segment(peer, (wire.owner, wire.segment))
        check_bounds(meta, offset=wire.offset, nbytes=wire.nbytes, segment_nbytes=segment.nbytes)
        return LeasedRef(segment, _Lease(peer, wire.lease), wire, meta)

    def _own(self, peer: Peer, wire: WireTensor, meta: TensorMeta) -> torch.Tensor:
        for export in peer.exports.values():
            if isinstance(export, Slot) and (export.segment_id, export.offset) == (wire.segment, wire.offset):
                check_bounds(meta, offset=0, nbytes=wire.nbytes, segment_nbytes=export.capacity_nbytes)
                # the peer's lease on the slot stays; the lease that it gave us ends when this view dies
                lease = (export, _Lease(peer, wire.lease))
                return leased_view(export.segment, export.offset, meta, lease)
        raise StaleReference(f"{peer.name} refers to a slot of this process on which it has no lease")

    def _resolve_device(self, peer: Peer, wire: WireDeviceTensor, meta: TensorMeta) -> TensorRef | torch.Tensor:
        if wire.owner == self.identity:
            return self._own_on_device(peer, wire, meta)
        pool = self._pool(peer, (wire.owner, wire.pool))
        check_bounds(meta, offset=wire.offset, nbytes=wire.nbytes, segment_nbytes=pool.offer.nbytes)
        if wire.event >= len(pool.offer.event_handles):
            raise BoundsError(f"{peer.name} names event {wire.event} of a pool of {len(pool.offer.event_handles)}")
        return DeviceRef(pool, peer, wire, meta)

    def _own_on_device(self, peer: Peer, wire: WireDeviceTensor, meta: TensorMeta) -> torch.Tensor:
        plane = self.plane
        if plane is not None and wire.pool == plane.offer.pool:
            for export in peer.exports.values():
                if isinstance(export, DeviceSlot) and export.offset == wire.offset:
                    check_bounds(meta, offset=0, nbytes=wire.nbytes, segment_nbytes=export.capacity_nbytes)
                    return plane.pool.view(export, meta, _Lease(peer, wire.lease))
        raise StaleReference(f"{peer.name} refers to device memory of this process on which it has no lease")

    def _pool(self, peer: Peer, key: tuple[str, int]) -> PeerPool:
        """The device pool that a peer offered under this key."""
        while key not in peer.pools and peer.doorbell is not None:
            if not self._take_in(peer, peer.doorbell.take_offers() or peer.doorbell.seek_offers()):
                break
        if key not in peer.pools:
            raise StaleReference(f"{peer.name} refers to a device pool that it never offered, or that was refused")
        return peer.pools[key]

    def _segment(self, peer: Peer, key: tuple[str, int]) -> PeerSegment:
        """The segment that a peer offered under this key; a single-tensor segment is returned only once."""
        while key not in peer.segments and peer.doorbell is not None:
            if not self._take_in(peer, peer.doorbell.take_offers() or peer.doorbell.seek_offers()):
                break
        segment = peer.segments.get(key)
        if segment is None:
            raise StaleReference(f"{peer.name} refers to a segment whose descriptor it never sent")
        if isinstance(segment, SegmentRefused):
            raise type(segment)(str(segment))
        if segment.is_single:
            del peer.segments[key]
        return segment

    def receive_segments(self, peer: Peer) -> None:
        """Accept the segments and device pools that the doorbell has read so far."""
        if peer.doorbell is not None:
            self._take_in(peer, peer.doorbell.take_offers())

    def _take_in(self, peer: Peer, offers: list[Offered]) -> bool:
        """Check and store what was offered; a reference to a refused segment raises its error."""
        for offered in offers:
            if isinstance(offered, OfferedPool):
                self._take_in_pool(peer, offered)
                continue
            key = (offered.owner, offered.segment_id)
            is_known = key in peer.segments and not isinstance(peer.segments[key], SegmentLost)
            if is_known or offered.owner == self.identity or len(peer.segments) >= MAX_NUM_SEGMENTS:
                offered.close()  # segments never change, and this process needs no descriptors of its own
                continue
            try:
                peer.segments[key] = PeerSegment(offered)
            except SegmentRefused as error:
                offered.close()
                log.warning("%s: %s", peer.name, error)
                peer.segments[key] = error
        return bool(offers)

    def _take_in_pool(self, peer: Peer, offered: OfferedPool) -> None:
        """Check, store and open an offered device pool; tensors in one that was not opened can be passed on."""
        key = (offered.owner, offered.offer.pool)
        if key in peer.pools or offered.owner == self.identity:
            offered.close()
            return
        try:
            if len(peer.pools) >= MAX_NUM_DEVICE_POOLS:
                raise DeviceUnavailable(f"more than {MAX_NUM_DEVICE_POOLS} device pools were offered")
            pool = PeerPool(offered)
        except (DeviceUnavailable, OSError) as error:
            offered.close()
            log.warning("%s: %s", peer.name, error)
            return
        peer.pools[key] = pool
        peer.new_pools.append(pool)
        if self.plane is not None:
            try:
                pool.open(self.plane)
            except MoraError as error:
                log.warning("%s: tensors go through host memory: %s", peer.name, error)

    def forget(self, peer: Peer) -> None:
        """Forget a peer that is gone: its leases end, and its segments and pools are unmapped once unused."""
        peer.exports.clear()
        peer.segments.clear()
        for pool in peer.pools.values():
            if self.plane is not None and pool.opened is not None:
                self.plane.leave(pool.opened)
        peer.pools.clear()
        peer.new_pools.clear()
        peer.readers.clear()
        if peer.doorbell is not None:
            peer.doorbell.close()

    def close(self) -> None:
        """Close every descriptor of this process's own segments, and its device memory."""
        if self.plane is not None:
            self.plane.close()
        self.arena.close()
