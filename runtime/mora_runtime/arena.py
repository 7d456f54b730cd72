"""The owner's side of the tensor plane: a pool of slots in sealed segments, reused warm.

A slot is free again when the last local view, the last export to a peer and the last autograd graph that uses it are
gone. Python's own references are the count: a `Slot` is alive as long as anybody holds it. Finalizers may run in any
thread and in the middle of anything, so they only append to a deque; the free lists are touched by the owner alone.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence

import torch

from mora_runtime.errors import ArenaFull
from mora_runtime.limits import ALIGNMENT_NBYTES, MIN_SLOT_NBYTES, SLAB_NBYTES
from mora_runtime.segment import Segment
from mora_runtime.tensor_meta import TensorMeta, meta_of


class Slot:
    """A piece of a segment that holds one tensor. Alive = in use."""

    __slots__ = ("__weakref__", "buffer", "capacity_nbytes", "offset", "segment_id")

    def __init__(self, segment_id: int, offset: int, capacity_nbytes: int, buffer: memoryview) -> None:
        self.segment_id = segment_id
        self.offset = offset
        self.capacity_nbytes = capacity_nbytes
        self.buffer = buffer


class Arena:
    """Slots of one process.

    Args:
        budget_nbytes: most that all segments together may take.
    """

    def __init__(self, budget_nbytes: int) -> None:
        self._budget_nbytes = budget_nbytes
        self._segments: dict[int, Segment] = {}
        self._free: dict[int, list[tuple[int, int]]] = {}  # capacity -> (segment, offset)
        self._returned: deque[tuple[int, int, int]] = deque()  # (capacity, segment, offset), appended by finalizers
        self._by_address: dict[int, weakref.ref[Slot]] = {}
        self.allocated_nbytes = 0
        self._num_taken = 0

    @property
    def num_live(self) -> int:
        """Slots in use."""
        return self._num_taken - len(self._returned)

    def segment(self, segment_id: int) -> Segment:
        """One of this arena's segments."""
        return self._segments[segment_id]

    def empty(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An uninitialised CPU tensor that lives in a slot; sending it whole costs no copy.

        Raises:
            ArenaFull: no slot is left within the budget.
        """
        meta = TensorMeta(dtype, tuple(shape))
        return view_of(self._take(meta.nbytes), meta)

    def place(self, tensor: torch.Tensor) -> tuple[Slot, TensorMeta]:
        """The slot that holds this tensor: its own when it already is a whole slot of ours, else a copy's.

        CUDA tensors are staged through host memory here, and nowhere else.

        Raises:
            ArenaFull: no slot is left within the budget.
            BoundsError: a dtype, layout or rank that the plane does not carry.
        """
        meta = meta_of(tensor)
        resident = self._resident(tensor, meta)
        if resident is not None:
            return resident, meta
        slot = self._take(meta.nbytes)
        if meta.nbytes:
            view_of(slot, meta).copy_(tensor.detach())
        return slot, meta

    def _resident(self, tensor: torch.Tensor, meta: TensorMeta) -> Slot | None:
        if tensor.device.type != "cpu" or not tensor.is_contiguous() or meta.nbytes == 0:
            return None
        found = self._by_address.get(tensor.data_ptr())
        slot = None if found is None else found()
        return slot if slot is not None and meta.nbytes <= slot.capacity_nbytes else None

    def _take(self, nbytes: int) -> Slot:
        capacity = self._available(slot_capacity(nbytes))
        segment_id, offset = self._free[capacity].pop()
        buffer = self._segments[segment_id].buffer[offset : offset + capacity]
        slot = Slot(segment_id, offset, capacity, buffer)
        self._num_taken += 1
        weakref.finalize(slot, self._returned.append, (capacity, segment_id, offset)).atexit = False
        self._by_address[_address(buffer)] = weakref.ref(slot)
        return slot

    def _available(self, capacity: int) -> int:
        """Size class that has a free slot for `capacity` bytes: its own, or the next larger once the budget is used."""
        self._collect()
        if not self._free.get(capacity):
            try:
                self._grow(capacity)
            except ArenaFull:
                larger = [free for free, places in self._free.items() if free > capacity and places]
                if not larger:
                    raise
                return min(larger)
        return capacity

    def _collect(self) -> None:
        """Move slots whose last user is gone to the free lists."""
        while self._returned:
            capacity, segment_id, offset = self._returned.popleft()
            self._free.setdefault(capacity, []).append((segment_id, offset))
            self._num_taken -= 1

    def _grow(self, capacity: int) -> None:
        nbytes = max(SLAB_NBYTES, capacity) if capacity <= SLAB_NBYTES // 4 else capacity
        if self.allocated_nbytes + nbytes > self._budget_nbytes:
            raise ArenaFull(
                f"no slot of {capacity} bytes left: {self.num_live} slots are in use and {self.allocated_nbytes} of "
                f"{self._budget_nbytes} bytes are allocated; raise arena_nbytes, or let tensors go sooner"
            )
        segment_id = len(self._segments)
        try:
            self._segments[segment_id] = Segment.create(nbytes)
        except OSError as error:
            raise ArenaFull(f"the machine gives no {nbytes} bytes of shared memory ({error.strerror})") from None
        self.allocated_nbytes += nbytes
        places = [(segment_id, offset) for offset in range(0, nbytes - capacity + 1, capacity)]
        self._free.setdefault(capacity, []).extend(reversed(places))

    def close(self) -> None:
        """Close all descriptors; memory that is still viewed stays until its last view dies."""
        for segment in self._segments.values():
            segment.close()


def slot_capacity(nbytes: int) -> int:
    """Size class of a slot: powers of two and the three steps between them, so at most a quarter is wasted."""
    if nbytes <= MIN_SLOT_NBYTES:
        return MIN_SLOT_NBYTES
    power = 1 << (nbytes - 1).bit_length()
    step = max(ALIGNMENT_NBYTES, power // 8)
    return (nbytes + step - 1) // step * step


def view_of(slot: Slot, meta: TensorMeta) -> torch.Tensor:
    """A tensor over a slot that keeps the slot in use until the last tensor, view or graph on it is gone."""
    return leased_view(slot.buffer, meta, slot)


def leased_view(buffer: memoryview, meta: TensorMeta, lease: object) -> torch.Tensor:
    """A tensor over the start of `buffer` that keeps `lease` alive as long as any view of it lives.

    torch holds the memoryview slice, not the lease; a finalizer on that slice is what lets the lease go. Each view is
    a separate tensor with its own version counter, so writing one slot never breaks the backward of another.
    """
    if meta.nbytes == 0:
        return torch.empty(meta.shape, dtype=meta.dtype)
    window = buffer[: meta.nbytes]
    weakref.finalize(window, _let_go, [lease]).atexit = False
    return torch.frombuffer(window, dtype=meta.dtype).view(meta.shape)


def _let_go(lease: list[object]) -> None:
    lease.clear()


def _address(buffer: memoryview) -> int:
    return torch.frombuffer(buffer, dtype=torch.uint8).data_ptr()
