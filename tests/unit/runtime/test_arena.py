"""A slot is reused, warm, exactly when no process can read it any more."""

import errno
import gc
import itertools
import os
import random

import psutil
import pytest
import torch
from mora_runtime.errors import ArenaFull, MemoryFilesForbidden
from mora_runtime.limits import GROWTH_NBYTES, INLINE_TENSOR_NBYTES, MIN_SLOT_NBYTES
from mora_runtime.tensors.arena import Arena, slot_capacity, view_of
from mora_runtime.tensors.segment import Segment
from mora_runtime.wire.tensor_meta import meta_of

BIG = 2 << 20  # bytes
BIG_SHAPE = (BIG // 4,)
SMALL_SHAPE = (INLINE_TENSOR_NBYTES // 4 + 1,)  # the smallest that gets a slot


@pytest.fixture
def arena() -> Arena:
    return Arena(64 << 20, spill_nbytes=0)


class Lender:
    """A peer that keeps tensors until a test releases them."""

    def __init__(self, held: list[torch.Tensor]) -> None:
        self.held = held
        self.num_asked = 0

    def reclaim(self, timeout_s: float) -> bool:
        self.num_asked += 1
        if not self.held:
            return False
        self.held.pop()
        return True

    def holders(self) -> str:
        return f"echo.0 {len(self.held)} tensors"


def address(tensor: torch.Tensor) -> int:
    return tensor.data_ptr()


def test_a_tensor_of_the_arena_is_aligned_and_writable(arena: Arena) -> None:
    made = arena.empty((3, 5000), torch.bfloat16)
    assert address(made) % 64 == 0
    assert made.fill_(2).double().sum().item() == 30_000
    assert arena.num_live == 1


def test_a_tensor_inside_a_frame_takes_no_slot(arena: Arena) -> None:
    assert arena.empty((INLINE_TENSOR_NBYTES,), torch.uint8).shape == (INLINE_TENSOR_NBYTES,)
    assert arena.num_live == 0


def test_a_slot_is_used_again_when_its_last_view_has_died(arena: Arena) -> None:
    first = arena.empty(BIG_SHAPE)
    second_view = first[5:10].view(-1)
    where = address(first)
    del first
    other = arena.empty(BIG_SHAPE)
    assert address(other) != where, "a view of the first tensor is still alive"
    del second_view
    assert address(arena.empty(BIG_SHAPE)) == where
    assert arena.allocated_nbytes == GROWTH_NBYTES


def test_a_slot_is_not_used_again_while_an_export_holds_it(arena: Arena) -> None:
    made = arena.empty(BIG_SHAPE)
    where = address(made)
    slot, _ = arena.slot_of(made)
    del made
    assert address(arena.empty(BIG_SHAPE)) != where
    del slot
    taken = [arena.empty(BIG_SHAPE), arena.empty(BIG_SHAPE)]
    assert where in {address(tensor) for tensor in taken}


def test_a_slot_is_not_used_again_while_an_autograd_graph_needs_it(arena: Arena) -> None:
    factor = arena.empty(BIG_SHAPE).fill_(3.0)
    where = address(factor)
    weight = torch.ones(BIG_SHAPE, requires_grad=True)
    loss = (weight * factor).sum()
    del factor
    for _ in range(3):
        arena.empty(BIG_SHAPE).fill_(7.0)
    loss.backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full(BIG_SHAPE, 3.0))
    del loss
    gc.collect()
    taken = [arena.empty(BIG_SHAPE), arena.empty(BIG_SHAPE)]
    assert where in {address(tensor) for tensor in taken}


def test_the_number_of_live_slots_follows_at_once(arena: Arena) -> None:
    made = [arena.empty(SMALL_SHAPE) for _ in range(5)]
    assert arena.num_live == 5
    made.pop()
    assert arena.num_live == 4
    made.clear()
    assert arena.num_live == 0


def test_a_tensor_that_lives_in_the_arena_is_not_copied(arena: Arena) -> None:
    made = arena.empty((64, 64))
    slot, meta = arena.slot_of(made)
    again, _ = arena.slot_of(made)
    assert slot is again
    assert meta.shape == (64, 64)
    assert arena.num_live == 1


def test_a_part_of_a_resident_tensor_that_starts_elsewhere_is_copied(arena: Arena) -> None:
    made = arena.empty((64, 64)).fill_(0)
    made[32:] = 1
    slot, meta = arena.slot_of(made[32:])
    assert arena.num_live == 2
    assert torch.equal(view_of(slot, meta), torch.ones(32, 64))


def test_a_strided_tensor_is_placed_dense(arena: Arena) -> None:
    original = torch.arange(12.0).view(3, 4).t()
    slot, meta = arena.slot_of(original)
    assert torch.equal(view_of(slot, meta), original)


def test_a_tensor_that_needs_a_gradient_is_placed_without_its_graph(arena: Arena) -> None:
    slot, meta = arena.slot_of(torch.ones(3, requires_grad=True) * 2)
    placed = view_of(slot, meta)
    assert not placed.requires_grad
    assert placed.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("tensor", [torch.tensor(3.5), torch.empty(0), torch.empty((2, 0, 3))])
def test_scalars_and_empty_tensors_can_be_placed(arena: Arena, tensor: torch.Tensor) -> None:
    slot, meta = arena.slot_of(tensor)
    assert meta == meta_of(tensor)
    assert torch.equal(view_of(slot, meta), tensor)


def test_a_full_arena_reports_its_use_by_peer_and_what_to_do() -> None:
    arena = Arena(2 * BIG, spill_nbytes=0)
    held = [arena.empty(BIG_SHAPE), arena.empty(BIG_SHAPE)]
    arena.lenders = Lender([])
    text = (
        f"no slot of {BIG} bytes left: 2 slots are in use, {2 * BIG} of {2 * BIG} bytes are allocated and 0 of 0 "
        "spilled; leases: echo.0 0 tensors; raise arena_nbytes, or free tensors sooner"
    )
    with pytest.raises(ArenaFull, match=text):
        arena.empty(BIG_SHAPE)
    held.pop()
    arena.empty(BIG_SHAPE)


def test_a_full_budget_is_divided_and_merged_again_for_tensors_of_other_sizes() -> None:
    arena = Arena(BIG, spill_nbytes=0)
    where = address(arena.empty(BIG_SHAPE))
    parts = [arena.empty((BIG // 16,)) for _ in range(4)]
    assert sorted(address(part) - where for part in parts) == [0, BIG // 4, BIG // 2, 3 * BIG // 4]
    with pytest.raises(ArenaFull):
        arena.empty((BIG // 16,))
    parts.clear()
    assert address(arena.empty(BIG_SHAPE)) == where


def test_tensors_beyond_the_pool_spill_and_their_memory_is_returned() -> None:
    arena = Arena(BIG, spill_nbytes=2 * BIG)
    pooled = arena.empty(BIG_SHAPE)
    spilled = [arena.empty(BIG_SHAPE).fill_(number) for number in range(2)]
    assert (arena.num_spills, arena.spilled_nbytes, arena.allocated_nbytes) == (2, 2 * BIG, BIG)
    assert [float(tensor[-1]) for tensor in spilled] == [0.0, 1.0]
    with pytest.raises(ArenaFull):
        arena.empty(BIG_SHAPE)
    where = address(pooled)
    del spilled[:], pooled
    assert address(arena.empty(BIG_SHAPE)) == where, "the pool comes first again"
    assert arena.spilled_nbytes == 0


def test_a_request_waits_for_slots_that_peers_return() -> None:
    arena = Arena(2 * BIG, spill_nbytes=0, wait_s=10)
    lender = Lender([arena.empty(BIG_SHAPE), arena.empty(BIG_SHAPE)])
    arena.lenders = lender
    taken = [arena.empty(BIG_SHAPE), arena.empty(BIG_SHAPE)]
    assert lender.num_asked == 2
    with pytest.raises(ArenaFull):
        arena.empty(BIG_SHAPE)
    assert len(taken) == 2


def test_a_machine_without_memory_gives_a_full_arena() -> None:
    arena = Arena(1 << 63, spill_nbytes=0)
    with pytest.raises(ArenaFull, match=r"no slot of \d+ bytes left: 0 slots are in use"):
        arena.empty((psutil.virtual_memory().total + 1,), torch.uint8)


def test_a_pool_is_warm_from_the_start() -> None:
    arena = Arena(8 * BIG, warm_nbytes=2 * BIG)
    assert arena.allocated_nbytes == 2 * BIG
    held = [arena.empty(BIG_SHAPE), arena.empty(BIG_SHAPE)]
    assert arena.allocated_nbytes == 2 * BIG
    assert len(held) == 2


def test_small_tensors_share_one_segment(arena: Arena) -> None:
    made = [arena.empty(SMALL_SHAPE) for _ in range(100)]
    assert arena.allocated_nbytes == GROWTH_NBYTES
    assert len({address(tensor) for tensor in made}) == 100


def test_tensors_of_changing_sizes_never_overlap_and_never_need_more_than_the_pool() -> None:
    arena = Arena(32 * BIG, spill_nbytes=0)
    generator = random.Random(0)
    live: list[tuple[torch.Tensor, int]] = []
    for number in range(3000):
        made = arena.empty((generator.randrange(INLINE_TENSOR_NBYTES + 1, BIG),), torch.uint8)
        live.append((made.fill_(number % 251), number % 251))
        if len(live) > 12:
            tensor, value = live.pop(generator.randrange(len(live)))
            assert bool((tensor == value).all())
            del tensor
    assert arena.num_live == 13 - 1
    del made
    live.clear()
    assert arena.allocated_nbytes == GROWTH_NBYTES
    arena.empty((14 * BIG,), torch.uint8)


def test_slots_of_one_segment_do_not_overlap(arena: Arena) -> None:
    made = [arena.empty((2048,)).fill_(number) for number in range(50)]
    assert all(torch.equal(tensor, torch.full((2048,), float(n))) for n, tensor in enumerate(made))


def test_size_classes_are_large_enough_aligned_increasing_and_waste_at_most_a_quarter() -> None:
    sizes = [0, 1, 4095, 4096, 4097, *(2**n + d for n, d in itertools.product(range(13, 40), (-1, 0, 1, 12345)))]
    previous = 0
    for nbytes in sorted(sizes):
        capacity = slot_capacity(nbytes)
        assert capacity >= max(nbytes, previous)
        assert capacity % 64 == 0
        assert capacity == MIN_SLOT_NBYTES or capacity <= nbytes * 1.25
        previous = capacity


def test_memory_that_the_system_refuses_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(nbytes: int) -> Segment:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    arena = Arena(1 << 20, spill_nbytes=0)
    monkeypatch.setattr(Segment, "create", refuse)
    with pytest.raises(ArenaFull, match=r"gives no more shared memory \(Too many open files\)"):
        arena.empty(SMALL_SHAPE)


def test_a_system_without_memory_files_is_not_taken_for_a_full_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(MemoryFilesForbidden, match="refuses memfd_create"):
        Arena(1 << 20).empty(SMALL_SHAPE)
