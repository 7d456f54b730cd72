"""Which process may use which bytes of a device pool, and when, on a device whose streams the tests control."""

import gc
import threading
from typing import Any

import pytest
import torch
from fake_device import FakeDevice
from mora_runtime.device import device_pool
from mora_runtime.device.device_pool import DevicePool, OpenedPool
from mora_runtime.device.pinned_staging import PinnedStaging
from mora_runtime.errors import (
    ArenaFull,
    BoundsError,
    DeadlineExceeded,
    DeviceUnavailable,
    PeerDied,
)
from mora_runtime.limits import NUM_DEVICE_EVENTS
from mora_runtime.tensors.segment import Segment
from mora_runtime.wire.device_tensor import DeviceOffer, DeviceTensor

MB = 1 << 20
SHAPE = (MB // 4,)  # float32: one MB
WORK, OTHER = 7, 8  # streams


class Pair:
    """An owner and a reader, as if in two processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, way: Any = "same device") -> None:
        self.owner, self.reader = FakeDevice(), FakeDevice(way=way)
        self.pool = DevicePool(self.owner, 4 * MB)
        monkeypatch.setattr(device_pool, "_own_pools", {})  # the reader's process knows no pools of its own
        self.alive = True
        offer = DeviceOffer.unpack(self.pool.offer.pack())
        self.opened = OpenedPool(offer, self.reader, owner="peer.1", is_alive=lambda: self.alive)

    def send(self, tensor: torch.Tensor) -> DeviceTensor:
        sent = self.pool.export(*self.pool.place(tensor))
        return DeviceTensor.unpack(sent.pack())

    def view(self, sent: DeviceTensor, lease: int = 1, deadline_s: float = 0.0) -> torch.Tensor:
        return self.opened.view(sent, lease, deadline_s=deadline_s)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Pair:
    return Pair(monkeypatch)


@pytest.fixture
def pool() -> DevicePool:
    return DevicePool(FakeDevice(), 4 * MB)


def test_the_budget_is_rounded_up_to_whole_granules() -> None:
    assert DevicePool(FakeDevice(), 1).nbytes == 2 * MB
    assert DevicePool(FakeDevice(), 2 * MB + 1).nbytes == 4 * MB


def test_slots_are_aligned_and_of_the_asked_dtype(pool: DevicePool) -> None:
    made = [pool.empty((3, 5), dtype) for dtype in (torch.bfloat16, torch.float64, torch.bool)]
    assert [tensor.data_ptr() % 256 for tensor in made] == [0, 0, 0]
    assert made[0].fill_(2).sum().item() == 30
    assert pool.num_live == 3


def test_a_slot_is_free_after_its_last_view(pool: DevicePool) -> None:
    made = pool.empty((4 * MB // 4,))
    part = made[5:].view(-1)
    del made
    with pytest.raises(ArenaFull, match="1 slots of a pool"):
        pool.empty((1,))
    del part
    assert pool.empty((4 * MB // 4,)).numel() == MB


def test_a_slot_is_not_used_again_while_an_export_or_a_graph_holds_it(pool: DevicePool) -> None:
    factor = pool.empty(SHAPE).fill_(3.0)
    where = factor.data_ptr()
    weight = torch.ones(SHAPE, requires_grad=True)
    loss = (weight * factor).sum()
    slot, _ = pool.place(factor)
    del factor
    for _ in range(8):
        assert pool.empty(SHAPE).fill_(7.0).data_ptr() != where
    loss.backward()
    del loss
    gc.collect()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full(SHAPE, 3.0))
    assert where not in {pool.empty(SHAPE).data_ptr() for _ in range(3)}
    del slot
    kept = [pool.empty(SHAPE) for _ in range(4)]
    assert where in {tensor.data_ptr() for tensor in kept}


def test_a_slot_is_not_used_again_before_the_work_on_it_has_run(pool: DevicePool, monkeypatch: Any) -> None:
    device: Any = pool.device
    monkeypatch.setattr(device_pool, "DEVICE_DEADLINE_S", 0.05)
    whole = (4 * MB // 4,)
    made = pool.empty(whole)
    device.hold(WORK)
    del made
    device.current_stream = OTHER
    with pytest.raises(ArenaFull, match="cpu"):
        pool.empty(whole)
    device.let_run(WORK)
    assert pool.empty(whole) is not None


def test_a_full_pool_waits_for_work_that_is_about_to_end(pool: DevicePool) -> None:
    device: Any = pool.device
    whole = (4 * MB // 4,)
    made = pool.empty(whole)
    device.hold(WORK)
    del made
    timer = threading.Timer(0.1, device.let_run, (WORK,))
    timer.start()
    assert pool.empty(whole) is not None
    timer.join(10)


def test_free_neighbours_are_merged_so_a_pool_does_not_fragment(pool: DevicePool) -> None:
    for _ in range(3):
        small = [pool.empty((MB // 16,)) for _ in range(16)]
        del small[1::2], small
        assert pool.empty((4 * MB // 4,)).numel() == MB


def test_a_resident_tensor_is_placed_without_a_copy(pool: DevicePool) -> None:
    made = pool.empty((4, 4))
    assert pool.place(made)[0] is pool.place(made.view(16))[0]
    assert pool.place(made[:2])[1].shape == (2, 4), "the head of a slot needs no copy either"
    for foreign in (made[1:], made.t(), torch.ones(4)):
        slot, meta = pool.place(foreign)
        assert torch.equal(pool.view(slot, meta), foreign)
        assert slot is not pool.place(made)[0]


def test_a_view_cannot_be_larger_than_its_slot(pool: DevicePool) -> None:
    slot, _ = pool.place(torch.ones(4))
    with pytest.raises(BoundsError):
        pool.view(slot, pool.place(torch.ones(400))[1])


def test_an_unknown_dtype_is_refused(pool: DevicePool) -> None:
    with pytest.raises(BoundsError):
        pool.empty((1,), torch.complex64)


def test_the_pool_closes_when_no_slot_is_in_use(pool: DevicePool) -> None:
    made = pool.empty((4,))
    assert not pool.close()
    del made
    assert pool.close()
    assert pool.close(), "a second time is no error"


def test_the_reader_sees_the_owners_bytes_in_place(pair: Pair) -> None:
    made = pair.pool.empty((2, 3), torch.bfloat16).fill_(1.5)
    seen = pair.view(pair.send(made))
    assert seen.dtype == torch.bfloat16
    assert seen.tolist() == [[1.5] * 3] * 2
    made.fill_(2.5)
    assert seen.tolist() == [[2.5] * 3] * 2
    assert pair.reader.num_opened == 1


def test_a_scalar_and_an_empty_tensor_cross(pair: Pair) -> None:
    assert pair.view(pair.send(torch.tensor(4.0)), 1).item() == 4
    empty = pair.view(pair.send(torch.empty(0, 3)), 2)
    assert empty.shape == (0, 3)
    assert sorted(pair.opened.collect()) == [1, 2]


def test_a_view_is_given_only_after_the_owners_work(pair: Pair) -> None:
    made = pair.pool.empty((4,)).zero_()
    pair.owner.hold(WORK)
    pair.owner.queue(WORK, lambda: made.fill_(1.0) is not None)
    sent = pair.send(made)
    with pytest.raises(DeadlineExceeded, match=r"peer\.1"):
        pair.view(sent, deadline_s=0.05)
    threading.Timer(0.1, pair.owner.let_run, (WORK,)).start()
    assert pair.view(sent, deadline_s=10.0).tolist() == [1.0] * 4


def test_an_event_that_is_used_again_still_covers_its_earlier_export(pair: Pair) -> None:
    made = pair.pool.empty((4,)).zero_()
    pair.owner.hold(WORK)
    first = pair.send(made)
    pair.owner.current_stream = OTHER
    later = [pair.send(made) for _ in range(NUM_DEVICE_EVENTS)]
    assert later[-1].event == first.event
    with pytest.raises(DeadlineExceeded):
        pair.view(first)
    pair.owner.let_run(WORK)
    assert pair.view(first).shape == (4,)


def test_a_lease_ends_after_the_last_view_and_the_readers_work(pair: Pair) -> None:
    seen = pair.view(pair.send(torch.ones(4)), lease=5)
    part = seen[1:]
    del seen
    assert pair.opened.collect() == []
    pair.reader.hold(WORK)
    del part
    assert pair.opened.collect() == [], "kernels may still read the slot"
    pair.reader.let_run(WORK)
    assert pair.opened.collect() == [5]
    assert pair.opened.collect() == []


def test_a_lease_waits_for_the_stream_of_its_view_not_of_its_end(pair: Pair) -> None:
    seen = pair.view(pair.send(torch.ones(4)), lease=5)
    pair.reader.hold(WORK)
    pair.reader.current_stream = OTHER
    del seen
    assert pair.opened.collect() == []
    pair.reader.let_run(WORK)
    assert pair.opened.collect() == [5]


def test_an_autograd_graph_keeps_the_lease(pair: Pair) -> None:
    factor = pair.view(pair.send(torch.full((4,), 3.0)), lease=9)
    weight = torch.ones(4, requires_grad=True)
    loss = (weight * factor).sum()
    del factor
    assert pair.opened.collect() == []
    loss.backward()
    assert pair.opened.collect() == [9]


def test_views_may_end_in_any_order_and_thread(pair: Pair) -> None:
    seen = [pair.view(pair.send(torch.ones(4)), lease) for lease in range(100)]
    thread = threading.Thread(target=seen.clear)
    thread.start()
    thread.join(10)
    assert sorted(pair.opened.collect()) == list(range(100))


def test_a_handle_closes_after_the_last_lease(pair: Pair) -> None:
    sent = pair.send(torch.ones(4))
    seen = pair.view(sent)
    assert not pair.opened.close()
    del seen
    assert not pair.opened.close(), "its lease was not collected yet"
    pair.opened.collect()
    assert pair.opened.close()
    assert pair.reader.num_opened == 0
    with pytest.raises(BoundsError, match="closed"):
        pair.view(sent)


def test_a_dead_owner_gives_no_new_views_and_the_old_ones_stay(pair: Pair) -> None:
    sent = pair.send(torch.full((4,), 2.0))
    seen = pair.view(sent)
    pair.alive = False
    with pytest.raises(PeerDied, match=r"peer\.1"):
        pair.view(sent)
    assert seen.tolist() == [2.0] * 4


def test_an_owner_that_dies_during_the_wait_is_noticed(pair: Pair) -> None:
    pair.owner.hold(WORK)
    sent = pair.send(torch.ones(4))

    def die() -> None:
        pair.alive = False

    threading.Timer(0.1, die).start()
    with pytest.raises(PeerDied):
        pair.view(sent, deadline_s=30.0)


def changed(sent: DeviceTensor, **fields: Any) -> DeviceTensor:
    values = {name: getattr(sent, name) for name in DeviceTensor.__slots__}
    return DeviceTensor(**{**values, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": 4 * MB},
        {"offset": 4 * MB - 64, "nbytes": 4 * 1024, "shape": (1024,)},
        {"offset": 1},
        {"offset": -64},
        {"nbytes": 8},
        {"dtype": 99},
        {"shape": (-4,)},
        {"shape": (1 << 40, 1 << 40)},
        {"event": NUM_DEVICE_EVENTS},
        {"event": -1},
        {"pool": 1},
    ],
    ids=str,
)
def test_a_tensor_outside_the_pool_is_refused(pair: Pair, fields: dict[str, Any]) -> None:
    sent = pair.send(torch.ones(4))
    with pytest.raises(BoundsError):
        pair.view(changed(sent, **fields))
    assert pair.opened.collect() == []
    assert pair.opened.close(), "nothing was leased"


def test_a_process_does_not_open_its_own_pool(pool: DevicePool) -> None:
    with pytest.raises(DeviceUnavailable, match="pool of this process itself"):
        OpenedPool(pool.offer, FakeDevice(), owner="peer.1", is_alive=lambda: True)


def test_an_inaccessible_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceUnavailable, match=r"peer\.1"):
        Pair(monkeypatch, way="host memory")


def test_a_handle_that_cannot_be_opened_and_a_false_size_are_refused(pair: Pair) -> None:
    offer = pair.pool.offer

    def opened(handle: bytes, nbytes: int) -> OpenedPool:
        changed = DeviceOffer(2, offer.device_uuid, nbytes, handle, offer.event_handles)
        return OpenedPool(changed, pair.reader, owner="peer.1", is_alive=lambda: True)

    with pytest.raises(DeviceUnavailable, match="host memory"):
        opened(b"\xff" * 64, offer.nbytes)
    with pytest.raises(BoundsError):
        opened(offer.memory_handle, offer.nbytes + 1)


def test_a_peer_device_copies_and_keeps_the_lease_until_the_copy_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(monkeypatch, way="peer device")
    made = pair.pool.empty((4,)).fill_(3.0)
    pair.reader.hold(WORK)
    seen = pair.view(pair.send(made), lease=3)
    assert pair.opened.collect() == []
    pair.reader.let_run(WORK)
    assert pair.opened.collect() == [3], "the copy is the reader's own"
    made.fill_(0)
    assert seen.tolist() == [3.0] * 4
    assert pair.reader.num_copied == 1


def test_staging_pins_segments_and_keeps_views_until_their_copy_has_run() -> None:
    device = FakeDevice()
    staging = PinnedStaging(device)
    segment = Segment.create(1 * MB)
    staging.register(segment.buffer)
    assert len(device.pinned) == 1
    window = torch.frombuffer(segment.buffer[:16], dtype=torch.float32)
    staging.to_host(torch.arange(4.0), window)
    staging.wait(deadline_s=5.0)
    device.hold(WORK)
    assert staging.to_device(window).tolist() == [0, 1, 2, 3]
    assert staging.collect() == 0
    with pytest.raises(DeadlineExceeded):
        staging.wait(deadline_s=0.01)
    device.let_run(WORK)
    assert staging.collect() == 1
    staging.close(deadline_s=5.0)
    assert device.pinned == set()
    segment.close()
