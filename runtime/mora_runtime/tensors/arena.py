"""The owner's side of the tensor store: a pool of slots in sealed segments, reused warm.

A slot is free again when the last local view, the last export to a peer and the last autograd graph that uses it are
gone. Python's reference count decides: a `Slot` is in use as long as the object exists. Finalizers may run in any
thread and at any moment, so they only append to a deque; only the owner's thread changes the free lists.

The process that will use the pool touches its pages when it opens it: the first use of a page takes five times as long
as the copy into it, and on a NUMA machine the first touch decides on which memory node the page is placed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import ref

import numpy as np
import torch

from mora_runtime.errors import ArenaFull
from mora_runtime.limits import (
    ALIGNMENT_NBYTES,
    DEFAULT_SPILL_NBYTES,
    GROWTH_NBYTES,
    INLINE_TENSOR_NBYTES,
    MIN_SLOT_NBYTES,
)
from mora_runtime.tensors.segment import Segment
from mora_runtime.trace import tracing
from mora_runtime.wire.tensor_meta import TensorMeta, meta_for, meta_of, shaped

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class _Extent:
    """A free piece of a segment."""

    segment_id: int
    offset: int
    nbytes: int


class Slot:
    """A piece of a segment that stores one tensor; in use as long as this object exists."""

    __slots__ = ("__weakref__", "_returned", "capacity_nbytes", "offset", "segment", "segment_id")

    def __init__(
        self, segment: Segment, segment_id: int, offset: int, capacity_nbytes: int, returned: deque[_Extent]
    ) -> None:
        self.segment = segment
        self.segment_id = segment_id
        self.offset = offset
        self.capacity_nbytes = capacity_nbytes
        self._returned = returned

    def __del__(self) -> None:
        self._returned.append(_Extent(self.segment_id, self.offset, self.capacity_nbytes))


class Lenders(Protocol):
    """Knows which peers have leases on slots, and waits for them to release some."""

    def reclaim(self, timeout_s: float) -> bool:
        """Wait until a peer may have released slots; False when no peer has a lease."""

    def holders(self) -> str:
        """Describe which peer has leases on how much, for an error text."""


class Arena:
    """Slots of one process.

    Args:
        budget_nbytes: limit of the pooled segments together.
        spill_nbytes: limit of separate segments, one for each tensor, that are used once the pool is full; slower,
            because their pages are fresh each time.
        warm_nbytes: part of the pool that is allocated and touched at once; the rest follows on demand.
        wait_s: how long a request waits for `lenders` to release slots when pool and spill are full.
    """

    def __init__(
        self,
        budget_nbytes: int,
        *,
        spill_nbytes: int = DEFAULT_SPILL_NBYTES,
        warm_nbytes: int = 0,
        wait_s: float = 0.0,
    ) -> None:
        self.lenders: Lenders | None = None
        self._budget_nbytes = budget_nbytes
        self._spill_nbytes = spill_nbytes
        self._wait_s = wait_s
        self._segments: dict[int, Segment] = {}
        self._num_segments = 0
        self._free: dict[int, list[_Extent]] = {}  # by size class; extents whose size has not changed since their use
        self._extents: list[_Extent] = []  # free extents of any size
        self._returned: deque[_Extent] = deque()  # appended by finalizers
        self._by_address: dict[int, ref[Slot]] = {}
        self.allocated_nbytes = 0
        self.spilled_nbytes = 0
        self.num_spills = 0
        self._num_taken = 0
        self._refusal: str | None = None  # why the system gave no memory for the slot that is being taken
        if warm_nbytes:
            self._add_segment(min(warm_nbytes, budget_nbytes))

    @property
    def num_live(self) -> int:
        """Slots in use."""
        return self._num_taken - len(self._returned)

    def segment(self, segment_id: int) -> Segment:
        """One of this arena's segments."""
        return self._segments[segment_id]

    def empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Make an uninitialised CPU tensor in a slot; sending the whole tensor copies nothing.

        A tensor small enough to travel inside a frame is ordinary memory.

        Raises:
            ArenaFull: no slot came free in time; the text names the peers that have leases.
        """
        meta = meta_for(dtype, shape)
        if meta.nbytes <= INLINE_TENSOR_NBYTES:
            return torch.empty(meta.shape, dtype=dtype)
        return view_of(self._take(meta.nbytes), meta)

    def slot_of(
        self, tensor: torch.Tensor, copy: Callable[[Slot, torch.Tensor, torch.Tensor], None] | None = None
    ) -> tuple[Slot, TensorMeta]:
        """Return the tensor's slot: its own if it already starts one of this arena's slots, else a new one with a copy.

        CUDA tensors are staged through host memory here, and nowhere else.

        Args:
            copy: copies the tensor, its last argument, into the slot's view, in place of a copy that has ended when
                this returns.

        Raises:
            ArenaFull: no slot came free in time; the text names the peers that have leases.
            BoundsError: a dtype, layout or rank that the store does not carry.
        """
        meta = meta_of(tensor)
        resident = self._resident(tensor, meta)
        if resident is not None:
            return resident, meta
        with tracing.span("copy into slot", "copy"):
            slot = self._take(meta.nbytes)
            if meta.nbytes and copy is not None:
                copy(slot, view_of(slot, meta), tensor)
            elif meta.nbytes:
                view_of(slot, meta).copy_(tensor.detach())
        return slot, meta

    def _resident(self, tensor: torch.Tensor, meta: TensorMeta) -> Slot | None:
        if tensor.device.type != "cpu" or not tensor.is_contiguous() or meta.nbytes == 0:
            return None
        found = self._by_address.get(tensor.data_ptr())
        slot = None if found is None else found()
        return slot if slot is not None and meta.nbytes <= slot.capacity_nbytes else None

    def _take(self, nbytes: int) -> Slot:
        self._refusal = None
        self._collect()
        capacity = slot_capacity(nbytes)
        extent = self._pooled(capacity) or self._spilled(capacity) or self._awaited(capacity)
        segment = self._segments[extent.segment_id]
        slot = Slot(segment, extent.segment_id, extent.offset, capacity, self._returned)
        self._num_taken += 1
        self._by_address[segment.address + extent.offset] = ref(slot)
        return slot

    def _pooled(self, capacity: int) -> _Extent | None:
        """Take a warm extent of this size class, from the free lists or by cutting, merging or growing the pool."""
        extents = self._free.get(capacity)
        if extents:
            return extents.pop()
        extent = self._cut(capacity)
        if extent is None and self._free:
            self._merge()
            extent = self._cut(capacity)
        if extent is None and self._grow(capacity):
            extent = self._cut(capacity)
        return extent

    def _cut(self, capacity: int) -> _Extent | None:
        """Cut the start off the smallest extent that is large enough."""
        fitting = [extent for extent in self._extents if extent.nbytes >= capacity]
        if not fitting:
            return None
        extent = min(fitting, key=lambda extent: (extent.nbytes, extent))
        self._extents.remove(extent)
        if extent.nbytes > capacity:
            self._extents.append(_Extent(extent.segment_id, extent.offset + capacity, extent.nbytes - capacity))
        return _Extent(extent.segment_id, extent.offset, capacity)

    def _merge(self) -> None:
        """Join adjacent free extents, so that freed memory serves tensors of other sizes."""
        merged: list[_Extent] = []
        for extent in sorted([*self._extents, *(extent for extents in self._free.values() for extent in extents)]):
            last = merged[-1] if merged else None
            if last is not None and (last.segment_id, last.offset + last.nbytes) == (extent.segment_id, extent.offset):
                merged[-1] = _Extent(last.segment_id, last.offset, last.nbytes + extent.nbytes)
            else:
                merged.append(extent)
        self._free.clear()
        self._extents = merged
        self._by_address = {address: slot for address, slot in self._by_address.items() if slot() is not None}

    def _grow(self, capacity: int) -> bool:
        room = self._budget_nbytes - self.allocated_nbytes
        return capacity <= room and self._add_segment(max(capacity, min(GROWTH_NBYTES, room)))

    def _add_segment(self, nbytes: int) -> bool:
        nbytes = nbytes // ALIGNMENT_NBYTES * ALIGNMENT_NBYTES
        made = self._make_segment(nbytes) if nbytes else None
        if made is not None:
            self.allocated_nbytes += nbytes
            self._extents.append(_Extent(made, 0, nbytes))
        return made is not None

    def _make_segment(self, nbytes: int) -> int | None:
        try:
            segment = Segment.create(nbytes)
        except OSError as error:
            log.warning("cannot allocate %d bytes of shared memory (%s)", nbytes, error.strerror)
            self._refusal = error.strerror
            return None
        self._num_segments += 1
        self._segments[self._num_segments] = segment
        return self._num_segments

    def _spilled(self, capacity: int) -> _Extent | None:
        """Make a segment for one tensor, freed together with it."""
        if self.spilled_nbytes + capacity > self._spill_nbytes:
            return None
        made = self._make_segment(capacity)
        if made is None:
            return None
        self._segments[made].is_single = True
        self.spilled_nbytes += capacity
        self.num_spills += 1
        if self.num_spills & (self.num_spills - 1) == 0:  # log the 1st, 2nd, 4th, ... spill
            log.warning("the arena is full, %d bytes spill (%d times so far); %s", capacity, self.num_spills, self)
        return _Extent(made, 0, capacity)

    def _awaited(self, capacity: int) -> _Extent:
        """Wait until a peer releases an extent, at most until the deadline."""
        deadline = time.monotonic() + self._wait_s
        with tracing.span("wait for a slot", "wait"):
            extent = self._reclaimed(capacity, deadline)
        if extent is None:
            raise ArenaFull(f"no slot of {capacity} bytes left: {self}; {self._advice()}")
        return extent

    def _advice(self) -> str:
        if self._refusal is not None:
            return f"the system gives no more shared memory ({self._refusal}): free memory or raise its limits"
        return "raise arena_nbytes, or free tensors sooner"

    def _reclaimed(self, capacity: int, deadline: float) -> _Extent | None:
        while self.lenders is not None and (remaining_s := deadline - time.monotonic()) > 0:
            if not self.lenders.reclaim(remaining_s):
                break
            self._collect()
            extent = self._pooled(capacity) or self._spilled(capacity)
            if extent is not None:
                return extent
        return None

    def __str__(self) -> str:
        """How full the arena is, and which peers have leases."""
        leases = "" if self.lenders is None else f"; leases: {self.lenders.holders()}"
        return (
            f"{self.num_live} slots are in use, {self.allocated_nbytes} of {self._budget_nbytes} bytes are allocated "
            f"and {self.spilled_nbytes} of {self._spill_nbytes} spilled{leases}"
        )

    def _collect(self) -> None:
        """Move slots without users to the free lists."""
        while self._returned:
            extent = self._returned.popleft()
            self._num_taken -= 1
            segment = self._segments[extent.segment_id]
            if segment.is_single:
                self._by_address.pop(segment.address, None)
                self._segments.pop(extent.segment_id).close()
                self.spilled_nbytes -= extent.nbytes
            else:
                self._free.setdefault(extent.nbytes, []).append(extent)

    def close(self) -> None:
        """Close all descriptors; memory stays mapped until its last view dies."""
        for segment in self._segments.values():
            segment.close()


def slot_capacity(nbytes: int) -> int:
    """Size class of a slot: powers of two and three steps between them, so at most a quarter is wasted."""
    if nbytes <= MIN_SLOT_NBYTES:
        return MIN_SLOT_NBYTES
    power = 1 << (nbytes - 1).bit_length()
    step = max(ALIGNMENT_NBYTES, power // 8)
    return (nbytes + step - 1) // step * step


def view_of(slot: Slot, meta: TensorMeta) -> torch.Tensor:
    """Make a tensor over a slot; the slot stays in use until the last tensor, view or graph on it is gone."""
    return leased_view(slot.segment, slot.offset, meta, slot)


class _Window(np.ndarray):
    """The bytes of one tensor. torch keeps this array alive, and the array keeps the lease alive."""

    lease: object


def leased_view(segment: Segment, offset: int, meta: TensorMeta, lease: object) -> torch.Tensor:
    """Make a tensor over bytes of a segment; `lease` lives as long as any tensor, view or graph on it.

    Each view is a separate tensor with its own version counter, so writing one slot never breaks the backward of
    another.
    """
    if meta.nbytes == 0:
        return torch.empty(meta.shape, dtype=meta.dtype)
    window = _Window((meta.nbytes,), np.uint8, segment.buffer, offset)
    window.lease = lease
    return shaped(torch.frombuffer(window, dtype=meta.dtype), meta)
