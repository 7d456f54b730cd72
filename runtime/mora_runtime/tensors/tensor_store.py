"""Tensors between one process and its peers: placing, exporting, resolving, leasing, forwarding.

A lease is between two direct peers. A peer's `exports` contains everything that this process has leased to it: own
slots, and references that this process received and forwarded. An export keeps its object alive until the peer releases
it, so a forwarded tensor stays leased along the whole path back to its owner without a reference count.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
import weakref
from collections import deque
from dataclasses import dataclass, field

import torch

from mora_runtime.errors import PeerDied, SegmentLost, SegmentRefused, StaleReference
from mora_runtime.limits import MAX_NUM_RELEASES, MAX_NUM_SEGMENTS
from mora_runtime.tensors.arena import Arena, Slot, leased_view
from mora_runtime.tensors.segment import Segment, check_descriptor
from mora_runtime.trace import tracing
from mora_runtime.wire.doorbell import Doorbell, Offered, OfferedPool, OfferedSegment
from mora_runtime.wire.messages import InlineTensor, WireTensor
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
    exports: dict[int, Slot | LeasedRef] = field(default_factory=dict)  # lease -> what it keeps alive
    announced: set[tuple[str, int]] = field(default_factory=set)  # segments whose descriptor the peer has
    # (owner, segment) -> a segment that this peer, and no other, may refer to
    segments: dict[tuple[str, int], PeerSegment | SegmentRefused] = field(default_factory=dict)
    to_release: deque[int] = field(default_factory=deque)  # ended leases from the peer; finalizers append
    lease_numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    sent_nbytes: int = 0  # of tensors leased to the peer, copied or not

    def holding(self) -> str:
        """Describe the peer's leases on this process's slots, for an error text."""
        nbytes = sum(export.capacity_nbytes for export in self.exports.values() if isinstance(export, Slot))
        return f"{self.name} {len(self.exports)} tensors, {nbytes} bytes"

    def released(self) -> list[int]:
        """Take the leases to give back with the next message, at most 1,024."""
        count = min(len(self.to_release), MAX_NUM_RELEASES)
        return [self.to_release.popleft() for _ in range(count)]

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

    def _view(self) -> torch.Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype}, {list(self.shape)})"


class LeasedRef(TensorRef):
    """A tensor in another process's segment. The lease ends with the last reference, view or graph on it."""

    def __init__(self, segment: PeerSegment, peer: Peer, wire: WireTensor, meta: TensorMeta) -> None:
        super().__init__(meta)
        self.wire = wire
        self.segment = segment
        self._lease = _Lease(peer, wire.lease)

    def _view(self) -> torch.Tensor:
        return leased_view(self.segment.mapped(), self.wire.offset, self.meta, self)


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


def _move_kind(slot: Slot, tensor: torch.Tensor) -> tracing.MoveKind:
    if slot.segment.is_single:
        return "spilled"
    return "resident" if tensor.data_ptr() == slot.segment.address + slot.offset else "copied"


class TensorStore:
    """The tensor store of this process.

    Args:
        identity: `name.generation.nonce`, never reused; owner of its segments.
        arena: where its own tensors are placed.
    """

    def __init__(self, identity: str, arena: Arena) -> None:
        self.identity = identity
        self.arena = arena

    def export(self, peer: Peer, value: torch.Tensor | TensorRef) -> WireTensor:
        """Lease a tensor, or a reference received from another process, to a peer.

        Raises:
            ArenaFull, BoundsError: it cannot be placed.
            PeerDied: the descriptor cannot be sent to the peer.
        """
        if isinstance(value, LeasedRef):
            wire = value.wire
            if tracing.active is not None:
                tracing.active.move("reference", value.nbytes, wire.owner, peer.name)
            return self._leased(peer, value, value.segment, wire.owner, wire.segment, wire.offset, value.meta)
        tensor = value.tensor() if isinstance(value, TensorRef) else value
        started_ns = time.monotonic_ns()
        slot, meta = self.arena.slot_of(tensor)
        if tracing.active is not None:
            spent_ns = time.monotonic_ns() - started_ns
            tracing.active.move(_move_kind(slot, tensor), meta.nbytes, self.identity, peer.name, spent_ns=spent_ns)
        return self._leased(peer, slot, slot.segment, self.identity, slot.segment_id, slot.offset, meta)

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

    def resolve(self, peer: Peer, wire: WireTensor) -> TensorRef | torch.Tensor:
        """Resolve a peer's wire tensor to a reference, or to this process's own tensor that came back.

        Raises:
            StaleReference: it names an own slot on which the peer has no lease, or a segment that was never offered.
            BoundsError, SegmentRefused
        """
        meta = checked_meta(wire.dtype, wire.shape)
        if wire.owner == self.identity:
            return self._own(peer, wire, meta)
        segment = self._segment(peer, (wire.owner, wire.segment))
        check_bounds(meta, offset=wire.offset, nbytes=wire.nbytes, segment_nbytes=segment.nbytes)
        return LeasedRef(segment, peer, wire, meta)

    def _own(self, peer: Peer, wire: WireTensor, meta: TensorMeta) -> torch.Tensor:
        for export in peer.exports.values():
            if isinstance(export, Slot) and (export.segment_id, export.offset) == (wire.segment, wire.offset):
                check_bounds(meta, offset=0, nbytes=wire.nbytes, segment_nbytes=export.capacity_nbytes)
                # the peer's lease on the slot stays; the lease that it gave us ends when this view dies
                lease = (export, _Lease(peer, wire.lease))
                return leased_view(export.segment, export.offset, meta, lease)
        raise StaleReference(f"{peer.name} refers to a slot of this process on which it has no lease")

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
        """Accept the descriptors that the doorbell has read so far."""
        if peer.doorbell is not None:
            self._take_in(peer, peer.doorbell.take_offers())

    def _take_in(self, peer: Peer, offers: list[Offered]) -> bool:
        """Check and store offered segments; a reference to a refused one raises its error."""
        for offered in offers:
            if isinstance(offered, OfferedPool):
                offered.close()
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

    def forget(self, peer: Peer) -> None:
        """Forget a peer that is gone: its leases end, and its segments are unmapped once unused."""
        peer.exports.clear()
        peer.segments.clear()
        if peer.doorbell is not None:
            peer.doorbell.close()

    def close(self) -> None:
        """Close every descriptor of this process's own segments."""
        self.arena.close()
