"""Tensors between one process and its peers: placing, exporting, resolving, leasing, forwarding.

A lease is an edge between two direct peers. What this process has given out to a peer stands in that peer's `exports`:
own slots, or references it was given itself and has handed on. An export keeps its object alive until the peer releases
it, so a forwarded tensor stays leased along the whole way back to its owner without anybody counting.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections import deque
from dataclasses import dataclass, field

import torch

from mora_runtime.arena import Arena, Slot, leased_view
from mora_runtime.errors import PeerDied, StaleReference
from mora_runtime.limits import MAX_NUM_RELEASES, SIDE_DEADLINE_S
from mora_runtime.messages import WireTensor
from mora_runtime.segment import Segment, check_descriptor
from mora_runtime.side_channel import OfferedSegment, SideChannel
from mora_runtime.tensor_meta import DTYPE_CODES, TensorMeta, check_bounds, checked_meta


@dataclass
class Peer:
    """What this process shares with one other."""

    name: str
    side: SideChannel | None = None
    exports: dict[int, object] = field(default_factory=dict)  # lease -> Slot or TensorRef that it keeps alive
    announced: set[tuple[str, int]] = field(default_factory=set)  # segments whose descriptor the peer has
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

    def __init__(self, plane: TensorPlane, peer: Peer, wire: WireTensor, meta: TensorMeta) -> None:
        self.wire = wire
        self.meta = meta
        self._plane = plane
        self._ended = weakref.finalize(self, peer.to_release.append, wire.lease)
        self._ended.atexit = False

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
        view = self._plane.view(self)
        return view if device is None else view.to(device)

    def __repr__(self) -> str:
        return f"TensorRef({self.dtype}, {list(self.shape)}, of {self.wire.owner})"


class TensorPlane:
    """This process's presence on the tensor plane.

    Args:
        identity: `name.generation.nonce`, unique for ever; owner of its segments.
        arena: where its own tensors are placed.
    """

    def __init__(self, identity: str, arena: Arena) -> None:
        self.identity = identity
        self.arena = arena
        self._descriptors: dict[tuple[str, int], tuple[int, int]] = {}  # (owner, segment) -> descriptor, nbytes
        self._mapped: dict[tuple[str, int], Segment] = {}

    def export(self, peer: Peer, value: torch.Tensor | TensorRef) -> WireTensor:
        """Lease a tensor, or a reference that another process gave us, to a peer.

        Raises:
            ArenaFull, BoundsError: it cannot be placed.
            PeerDied: the peer cannot be given the descriptor.
        """
        lease = next(peer.lease_numbers)
        if isinstance(value, TensorRef):
            peer.exports[lease] = value
            wire = value.wire
            self._announce(peer, wire.owner, wire.segment)
            return WireTensor(lease, wire.owner, wire.segment, wire.offset, wire.nbytes, wire.dtype, wire.shape)
        slot, meta = self.arena.place(value)
        peer.exports[lease] = slot
        self._announce(peer, self.identity, slot.segment_id)
        code = DTYPE_CODES[meta.dtype]
        return WireTensor(lease, self.identity, slot.segment_id, slot.offset, meta.nbytes, code, meta.shape)

    def _announce(self, peer: Peer, owner: str, segment_id: int) -> None:
        """Give the peer the segment's descriptor, once; its owner has it already."""
        key = (owner, segment_id)
        if key in peer.announced or peer.name == owner:
            return
        if peer.side is None:
            raise PeerDied(f"{peer.name}: has no side socket; it has not finished its greeting or has ended")
        if owner == self.identity:
            segment = self.arena.segment(segment_id)
            descriptor, nbytes = segment.descriptor, segment.nbytes
        else:
            descriptor, nbytes = self._descriptors[key]
        peer.side.send_segment(OfferedSegment(owner, segment_id, nbytes, descriptor), deadline_s=SIDE_DEADLINE_S)
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
        if key not in self._descriptors:
            self.receive_segments(peer)
        if key not in self._descriptors:
            raise StaleReference(f"{peer.name} refers to a segment whose descriptor it never sent")
        check_bounds(meta, offset=wire.offset, nbytes=wire.nbytes, segment_nbytes=self._descriptors[key][1])
        return TensorRef(self, peer, wire, meta)

    def _own(self, peer: Peer, wire: WireTensor, meta: TensorMeta) -> torch.Tensor:
        for export in peer.exports.values():
            if isinstance(export, Slot) and (export.segment_id, export.offset) == (wire.segment, wire.offset):
                check_bounds(meta, offset=0, nbytes=wire.nbytes, segment_nbytes=export.capacity_nbytes)
                # the returned lease is the peer's to keep while we use the slot; ours ends when this view dies
                return leased_view(export.buffer, meta, (export, TensorRef(self, peer, wire, meta)))
        raise StaleReference(f"{peer.name} refers to a slot of this process that it holds no lease on")

    def receive_segments(self, peer: Peer) -> None:
        """Take in all descriptors that a peer has sent; they are checked now and mapped when first read."""
        if peer.side is None:
            return
        for offered in peer.side.receive():
            key = (offered.owner, offered.segment_id)
            try:
                check_descriptor(offered.descriptor, offered.nbytes)
            except Exception:
                os.close(offered.descriptor)
                raise
            if key in self._descriptors or offered.owner == self.identity:
                os.close(offered.descriptor)  # known by another way; segments never change
            else:
                self._descriptors[key] = (offered.descriptor, offered.nbytes)

    def view(self, ref: TensorRef) -> torch.Tensor:
        """Map the reference's segment, once, and view its slot."""
        key = (ref.wire.owner, ref.wire.segment)
        if key not in self._mapped:
            descriptor, nbytes = self._descriptors[key]
            self._mapped[key] = Segment.attach(descriptor, nbytes)
        window = self._mapped[key].buffer[ref.wire.offset : ref.wire.offset + max(1, ref.nbytes)]
        return leased_view(window, ref.meta, ref)

    def forget(self, peer: Peer) -> None:
        """A peer is gone: its leases on our slots are over, and segments that it owned are unmapped once unused."""
        peer.exports.clear()
        if peer.side is not None:
            peer.side.close()
        for key in [key for key in self._descriptors if key[0] == peer.name]:
            descriptor, _ = self._descriptors.pop(key)
            os.close(descriptor)
            self._mapped.pop(key, None)

    def close(self) -> None:
        """Give back every descriptor."""
        for descriptor, _ in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        self._mapped.clear()
        self.arena.close()
