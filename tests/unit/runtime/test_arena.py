"""A slot is used again, warm, exactly when nobody can see it any more."""

import gc
import itertools

import psutil
import pytest
import torch
from mora_runtime.arena import Arena, leased_view, slot_capacity
from mora_runtime.errors import ArenaFull
from mora_runtime.limits import MIN_SLOT_NBYTES, SLAB_NBYTES
from mora_runtime.tensor_meta import meta_of

BIG = 2 << 20  # bytes; a slot of this size has a segment of its own
BIG_SHAPE = (BIG // 4,)


@pytest.fixture
def arena() -> Arena:
    return Arena(64 << 20)


def address(tensor: torch.Tensor) -> int:
    return tensor.data_ptr()


def test_a_tensor_of_the_arena_is_aligned_and_writable(arena: Arena) -> None:
    made = arena.empty((3, 5), torch.bfloat16)
    assert address(made) % 64 == 0
    assert made.fill_(2).sum().item() == 30


def test_a_slot_is_used_again_when_its_last_view_has_died(arena: Arena) -> None:
    first = arena.empty(BIG_SHAPE)
    second_view = first[5:10].view(-1)
    where = address(first)
    del first
    other = arena.empty(BIG_SHAPE)
    assert address(other) != where, "a view of the first tensor is still alive"
    del second_view
    assert address(arena.empty(BIG_SHAPE)) == where
    assert arena.allocated_nbytes == 2 * BIG


def test_a_slot_is_not_used_again_while_an_export_holds_it(arena: Arena) -> None:
    made = arena.empty(BIG_SHAPE)
    where = address(made)
    slot, _ = arena.place(made)
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
    made = [arena.empty((4,)) for _ in range(5)]
    assert arena.num_live == 5
    made.pop()
    assert arena.num_live == 4
    made.clear()
    assert arena.num_live == 0


def test_a_tensor_that_lives_in_the_arena_is_not_copied(arena: Arena) -> None:
    made = arena.empty((8, 8))
    slot, meta = arena.place(made)
    again, _ = arena.place(made)
    assert slot is again
    assert meta.shape == (8, 8)
    assert arena.num_live == 1


def test_a_part_of_a_resident_tensor_that_starts_elsewhere_is_copied(arena: Arena) -> None:
    made = arena.empty((8, 8)).fill_(0)
    made[4:] = 1
    slot, meta = arena.place(made[4:])
    assert arena.num_live == 2
    assert torch.equal(leased_view(slot.buffer, meta, slot), torch.ones(4, 8))


def test_a_strided_tensor_is_placed_dense(arena: Arena) -> None:
    original = torch.arange(12.0).view(3, 4).t()
    slot, meta = arena.place(original)
    assert torch.equal(leased_view(slot.buffer, meta, slot), original)


def test_a_tensor_that_needs_a_gradient_is_placed_without_its_graph(arena: Arena) -> None:
    slot, meta = arena.place(torch.ones(3, requires_grad=True) * 2)
    placed = leased_view(slot.buffer, meta, slot)
    assert not placed.requires_grad
    assert placed.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("tensor", [torch.tensor(3.5), torch.empty(0), torch.empty((2, 0, 3))])
def test_scalars_and_empty_tensors_can_be_placed(arena: Arena, tensor: torch.Tensor) -> None:
    slot, meta = arena.place(tensor)
    assert meta == meta_of(tensor)
    assert torch.equal(leased_view(slot.buffer, meta, slot), tensor)


def test_a_full_arena_says_how_full_it_is_and_what_to_do() -> None:
    arena = Arena(2 * BIG)
    held = [arena.empty(BIG_SHAPE), arena.empty(BIG_SHAPE)]
    text = (
        f"no slot of {BIG} bytes left: 2 slots are in use and {2 * BIG} of {2 * BIG} bytes are allocated; "
        "raise arena_nbytes, or let tensors go sooner"
    )
    with pytest.raises(ArenaFull, match=text):
        arena.empty(BIG_SHAPE)
    held.pop()
    arena.empty(BIG_SHAPE)


def test_a_used_up_budget_gives_a_larger_free_slot_rather_than_an_error() -> None:
    arena = Arena(BIG)
    where = address(arena.empty(BIG_SHAPE))
    smaller = arena.empty((BIG // 8,))
    assert address(smaller) == where
    with pytest.raises(ArenaFull):
        arena.empty((BIG // 8,))
    del smaller
    assert address(arena.empty(BIG_SHAPE)) == where


def test_memory_that_the_machine_does_not_have_is_a_full_arena() -> None:
    with pytest.raises(ArenaFull, match=r"the machine gives no \d+ bytes of shared memory \(Cannot allocate memory\)"):
        Arena(1 << 63).empty((psutil.virtual_memory().total + 1,), torch.uint8)


def test_small_tensors_share_one_segment(arena: Arena) -> None:
    made = [arena.empty((4,)) for _ in range(100)]
    assert arena.allocated_nbytes == SLAB_NBYTES
    assert len({address(tensor) for tensor in made}) == 100


def test_slots_of_one_segment_do_not_overlap(arena: Arena) -> None:
    made = [arena.empty((1024,)).fill_(number) for number in range(50)]
    assert all(torch.equal(tensor, torch.full((1024,), float(n))) for n, tensor in enumerate(made))


def test_size_classes_fit_are_aligned_rise_and_waste_at_most_a_quarter() -> None:
    sizes = [0, 1, 4095, 4096, 4097, *(2**n + d for n, d in itertools.product(range(13, 40), (-1, 0, 1, 12345)))]
    previous = 0
    for nbytes in sorted(sizes):
        capacity = slot_capacity(nbytes)
        assert capacity >= max(nbytes, previous)
        assert capacity % 64 == 0
        assert capacity == MIN_SLOT_NBYTES or capacity <= nbytes * 1.25
        previous = capacity
