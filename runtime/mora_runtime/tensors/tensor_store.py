"""Tensors between one process and its peers: placing, exporting, resolving, leasing, forwarding.

A lease is an edge between two direct peers. What this process has given out to a peer stands in that peer's `exports`:
own slots, or references it was given itself and has handed on. An export keeps its object alive until the peer releases
it, so a forwarded tensor stays leased along the whole way back to its owner without anybody counting.
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
from mora_runtime.wire.doorbell import Doorbell, OfferedSegment
from mora_runtime.wire.messages import InlineTensor, WireTensor
from mora_runtime.wire.tensor_meta import DTYPE_CODES, DTYPES, TensorMeta, check_bounds, checked_meta, meta_for, shaped

log = logging.getLogger(__name__)


class PeerSegment:
    """A segment as one peer offered it: its descriptor was checked, it is mapped when first read.

    Whoever refers to a tensor in it keeps it, so what a peer has given stays readable after the peer's death.
    """

    def __init__(self, offered: OfferedSegment) -> None:
        if offered.descriptor is None:
            raise SegmentLost("a segment came and cannot be taken: too many open files here; raise `ulimit -n`")
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
    """What this process shares with one other."""

    name: str
    doorbell: Doorbell | None = None
    exports: dict[int, Slot | LeasedRef] = field(default_factory=dict)  # lease -> what it keeps alive
    announced: set[tuple[str, int]] = field(default_factory=set)  # segments whose descriptor the peer has
    # (owner, segment) -> what this peer, and no other, may refer to
    segments: dict[tuple[str, int], PeerSegment | SegmentRefused] = field(default_factory=dict)
    to_release: deque[int] = field(default_factory=deque)  # leases from the peer that ended; finalizers append
    lease_numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    sent_nbytes: int = 0  # of tensors leased to the peer, copied or not

    def holding(self) -> str:
        """What the peer holds of this process, for people."""
        nbytes = sum(export.capacity_nbytes for export in self.exports.values() if isinstance(export, Slot))
        return f"{self.name} {len(self.exports)} tensors, {nbytes} bytes"

    def released(self) -> list[int]:
        """Leases to give back with the next message, at most 1,024."""
        count = min(len(self.to_release), MAX_NUM_RELEASES)
        return [self.to_release.popleft() for _ in range(count)]

    def take_back(self, leases: list[int]) -> None:
        """The peer's leases on our exports are over; unknown ones were never its to end and mean nothing."""
        for lease in leases:
            self.exports.pop(lease, None)


class TensorRef:
    """A tensor that another process gave to this one. A small value; nothing is mapped until asked.

    It can be passed as an argument to any client (the bytes of a large one are not touched), or viewed with `tensor`.
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
        """A zero-copy view in shared memory, to be read, not written; with a device, a copy there.

        Raises:
            SegmentRefused, BoundsError: what the peer offered cannot be mapped safely.
        """
        view = self._view()
        return view if device is None else view.to(device)

    def _view(self) -> torch.Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype}, {list(self.shape)})"


class LeasedRef(TensorRef):
    """A tensor in some process's segment. The lease ends when the last reference, view and graph on it is gone."""

    def __init__(self, segment: PeerSegment, peer: Peer, wire: WireTensor, meta: TensorMeta) -> None:
        super().__init__(meta)
        self.wire = wire
        self.segment = segment
        self._lease = _Lease(peer, wire.lease)

    def _view(self) -> torch.Tensor:
        return leased_view(self.segment.mapped(), self.wire.offset, self.meta, self)


class InlineRef(TensorRef):
    """A small tensor that came in the frame itself; it is this process's own."""

    def __init__(self, wire: InlineTensor) -> None:
        super().__init__(meta_for(DTYPES[wire.dtype], wire.shape))
        self.wire = wire

    def _view(self) -> torch.Tensor:
        if not self.wire.data:
            return torch.empty(self.meta.shape, dtype=self.meta.dtype)
        return shaped(torch.frombuffer(bytearray(self.wire.data), dtype=self.meta.dtype), self.meta)


class _Lease:
    """Tells the peer, with the next message, that a lease is over once nothing here refers to it."""

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
    """This process's presence on the tensor store.

    Args:
        identity: `name.generation.nonce`, unique for ever; owner of its segments.
        arena: where its own tensors are placed.
    """

    def __init__(self, identity: str, arena: Arena) -> None:
        self.identity = identity
        self.arena = arena

    def export(self, peer: Peer, value: torch.Tensor | TensorRef) -> WireTensor:
        """Lease a tensor, or a reference that another process gave us, to a peer.

        Raises:
            ArenaFull, BoundsError: it cannot be placed.
            PeerDied: the peer cannot be given the descriptor.
        """
        if isinstance(value, LeasedRef):
            wire = value.wire
            if tracing.active is not None:
                tracing.active.move("reference", value.nbytes, wire.owner, peer.name)
            return self._leased(peer, value, value.segment, wire.owner, wire.segment, wire.offset, value.meta)
        tensor = value.tensor() if isinstance(value, TensorRef) else value
        started_ns = time.monotonic_ns()
        slot, meta = self.arena.place(tensor)
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
        """Give the peer the segment's descriptor, once; its owner has it already."""
        key = (owner, segment_id)
        if key in peer.announced or peer.name == owner:
            return
        if peer.doorbell is None:
            raise PeerDied(f"{peer.name}: has no doorbell; it has not finished its greeting or has ended")
        offered = OfferedSegment(owner, segment_id, segment.nbytes, segment.descriptor, segment.is_single)
        peer.doorbell.send_segment(offered)
        if not segment.is_single:  # the receiver forgets one of a single tensor with that tensor
            peer.announced.add(key)

    def resolve(self, peer: Peer, wire: WireTensor) -> TensorRef | torch.Tensor:
        """What a peer's wire tensor stands for here: a reference, or our own tensor that has come back.

        Raises:
            StaleReference: it names a slot of ours that this peer does not hold, or a segment that was never offered.
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
                # the returned lease is the peer's to keep while we use the slot; ours ends when this view dies
                lease = (export, _Lease(peer, wire.lease))
                return leased_view(export.segment, export.offset, meta, lease)
        raise StaleReference(f"{peer.name} refers to a slot of this process that it holds no lease on")

    def _segment(self, peer: Peer, key: tuple[str, int]) -> PeerSegment:
        """The segment that a peer offered under this key; one of a single tensor is handed out once."""
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
        """Take in the descriptors that a peer has sent before the frames read so far."""
        if peer.doorbell is not None:
            self._take_in(peer, peer.doorbell.take_offers())

    def _take_in(self, peer: Peer, offers: list[OfferedSegment]) -> bool:
        """Check and keep what was offered; one that is refused is an error to whoever refers to it."""
        for offered in offers:
            key = (offered.owner, offered.segment_id)
            is_known = key in peer.segments and not isinstance(peer.segments[key], SegmentLost)
            if is_known or offered.owner == self.identity or len(peer.segments) >= MAX_NUM_SEGMENTS:
                offered.close()  # segments never change, and ours need no descriptor from others
                continue
            try:
                peer.segments[key] = PeerSegment(offered)
            except SegmentRefused as error:
                offered.close()
                log.warning("%s: %s", peer.name, error)
                peer.segments[key] = error
        return bool(offers)

    def forget(self, peer: Peer) -> None:
        """A peer is gone: its leases on our slots are over, and the segments it offered go once unused."""
        peer.exports.clear()
        peer.segments.clear()
        if peer.doorbell is not None:
            peer.doorbell.close()

    def close(self) -> None:
        """Give back every descriptor of this process's own segments."""
        self.arena.close()
