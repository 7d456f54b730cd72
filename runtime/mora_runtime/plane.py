"""Tensors between one process and its peers: placing, exporting, resolving, leasing, forwarding.

A lease is an edge between two direct peers. What this process has given out to a peer stands in that peer's `exports`:
own slots, or references it was given itself and has handed on. An export keeps its object alive until the peer releases
it, so a forwarded tensor stays leased along the whole way back to its owner without anybody counting.
"""

from __future__ import annotations

import itertools
import logging
import os
import weakref
from collections import deque
from dataclasses import dataclass, field

import torch

from mora_runtime.arena import Arena, Slot, leased_view
from mora_runtime.errors import PeerDied, SegmentRefused, StaleReference
from mora_runtime.limits import MAX_NUM_RELEASES, MAX_NUM_SEGMENTS, SIDE_DEADLINE_S
from mora_runtime.messages import WireTensor
from mora_runtime.segment import Segment, check_descriptor
from mora_runtime.side_channel import OfferedSegment, SideChannel
from mora_runtime.tensor_meta import DTYPE_CODES, TensorMeta, check_bounds, checked_meta

log = logging.getLogger(__name__)


class PeerSegment:
    """A segment as one peer offered it: its descriptor was checked, it is mapped when first read.

    Whoever refers to a tensor in it keeps it, so what a peer has given stays readable after the peer's death.
    """

    def __init__(self, offered: OfferedSegment) -> None:
        check_descriptor(offered.descriptor, offered.nbytes)
        self.descriptor = offered.descriptor
        self.nbytes = offered.nbytes
        self.mapped: Segment | None = None
        weakref.finalize(self, os.close, offered.descriptor).atexit = False

    def buffer(self) -> memoryview:
        """The mapped bytes."""
        if self.mapped is None:
            self.mapped = Segment.attach(self.descriptor, self.nbytes)
        return self.mapped.buffer


@dataclass
class Peer:
    """What this process shares with one other."""

    name: str
    side: SideChannel | None = None
    exports: dict[int, object] = field(default_factory=dict)  # lease -> Slot or TensorRef that it keeps alive
    announced: set[tuple[str, int]] = field(default_factory=set)  # segments whose descriptor the peer has
    # (owner, segment) -> what this peer, and no other, may refer to
    segments: dict[tuple[str, int], PeerSegment | SegmentRefused] = field(default_factory=dict)
    to_release: deque[int] = field(default_factory=deque)  # leases from the peer that ended; finalizers append
    lease_numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def released(self) -> list[int]:
        """Leases to give back with the next message, at most 1,024."""
        count = min(len(self.to_release), MAX_NUM_RELEASES)
        return [self.to_release.popleft() for _ in range(count)]

    def take_back(self, leases: list[int]) -> None:
        """The peer's leases on our exports are over; unknown ones were never its to end and mean nothing."""
        for lease in leases:
            self.exports.pop(lease, None)


class TensorRef:
    """A tensor that lives in some process's segment, leased to this one. A small value; nothing is mapped until asked.

    It can be passed as an argument to any client (the bytes are not touched), or viewed with `tensor`. The lease ends
    when the last reference, view and autograd graph on it is gone.
    """

    def __init__(self, segment: PeerSegment, peer: Peer, wire: WireTensor, meta: TensorMeta) -> None:
        self.wire = wire
        self.meta = meta
        self.segment = segment
        self._lease = _Lease(peer, wire.lease)

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
        start = self.wire.offset
        view = leased_view(self.segment.buffer()[start : start + max(1, self.nbytes)], self.meta, self)
        return view if device is None else view.to(device)

    def __repr__(self) -> str:
        return f"TensorRef({self.dtype}, {list(self.shape)}, of {self.wire.owner})"


class _Lease:
    """Tells the peer, with the next message, that a lease is over once nothing here refers to it."""

    def __init__(self, peer: Peer, number: int) -> None:
        weakref.finalize(self, peer.to_release.append, number).atexit = False


class TensorPlane:
    """This process's presence on the tensor plane.

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
        if isinstance(value, TensorRef):
            wire = value.wire
            self._announce(peer, wire.owner, wire.segment, value.segment)
            lease = next(peer.lease_numbers)
            peer.exports[lease] = value
            return WireTensor(lease, wire.owner, wire.segment, wire.offset, wire.nbytes, wire.dtype, wire.shape)
        slot, meta = self.arena.place(value)
        self._announce(peer, self.identity, slot.segment_id, self.arena.segment(slot.segment_id))
        lease = next(peer.lease_numbers)
        peer.exports[lease] = slot
        code = DTYPE_CODES[meta.dtype]
        return WireTensor(lease, self.identity, slot.segment_id, slot.offset, meta.nbytes, code, meta.shape)

    def _announce(self, peer: Peer, owner: str, segment_id: int, segment: Segment | PeerSegment) -> None:
        """Give the peer the segment's descriptor, once; its owner has it already."""
        key = (owner, segment_id)
        if key in peer.announced or peer.name == owner:
            return
        if peer.side is None:
            raise PeerDied(f"{peer.name}: has no side socket; it has not finished its greeting or has ended")
        offered = OfferedSegment(owner, segment_id, segment.nbytes, segment.descriptor)
        peer.side.send_segment(offered, deadline_s=SIDE_DEADLINE_S)
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
        key = (wire.owner, wire.segment)
        if key not in peer.segments:
            self.receive_segments(peer)
        segment = peer.segments.get(key)
        if segment is None:
            raise StaleReference(f"{peer.name} refers to a segment whose descriptor it never sent")
        if isinstance(segment, SegmentRefused):
            raise SegmentRefused(str(segment))
        check_bounds(meta, offset=wire.offset, nbytes=wire.nbytes, segment_nbytes=segment.nbytes)
        return TensorRef(segment, peer, wire, meta)

    def _own(self, peer: Peer, wire: WireTensor, meta: TensorMeta) -> torch.Tensor:
        for export in peer.exports.values():
            if isinstance(export, Slot) and (export.segment_id, export.offset) == (wire.segment, wire.offset):
                check_bounds(meta, offset=0, nbytes=wire.nbytes, segment_nbytes=export.capacity_nbytes)
                # the returned lease is the peer's to keep while we use the slot; ours ends when this view dies
                return leased_view(export.buffer, meta, (export, _Lease(peer, wire.lease)))
        raise StaleReference(f"{peer.name} refers to a slot of this process that it holds no lease on")

    def receive_segments(self, peer: Peer) -> None:
        """Take in all descriptors that a peer has sent; one that is refused is an error to whoever refers to it."""
        if peer.side is None:
            return
        for offered in peer.side.receive():
            key = (offered.owner, offered.segment_id)
            if key in peer.segments or offered.owner == self.identity or len(peer.segments) >= MAX_NUM_SEGMENTS:
                os.close(offered.descriptor)  # segments never change, and ours need no descriptor from others
                continue
            try:
                peer.segments[key] = PeerSegment(offered)
            except SegmentRefused as error:
                os.close(offered.descriptor)
                log.warning("%s: %s", peer.name, error)
                peer.segments[key] = error

    def forget(self, peer: Peer) -> None:
        """A peer is gone: its leases on our slots are over, and the segments it offered go once unused."""
        peer.exports.clear()
        peer.segments.clear()
        if peer.side is not None:
            peer.side.close()

    def close(self) -> None:
        """Give back every descriptor of this process's own segments."""
        self.arena.close()
