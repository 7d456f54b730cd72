"""Device memory between two real processes: the bytes, their order, refusals, and deaths.

`tests/unit/runtime/test_device_pool.py` tests without a device which bytes belong to which process; these tests check
that CUDA behaves as assumed there.
"""

import os
import struct
import time

import pytest
import torch
from mora_runtime.device.cuda_ipc import Device
from mora_runtime.device.device_pool import DevicePool, OpenedPool
from mora_runtime.device.pinned_staging import PinnedStaging
from mora_runtime.errors import BoundsError, DeviceFailed, DeviceUnavailable, PeerDied
from mora_runtime.tensors.segment import Segment
from mora_runtime.wire.device_tensor import DeviceOffer, DeviceTensor
from mora_runtime.wire.tensor_meta import DTYPES

from benchmarks.device_peer import CYCLES_PER_MS, DevicePeer, process_is_alive

pytestmark = pytest.mark.gpu

MB = 1 << 20
BUSY_MS = 500
SLACK_NBYTES = 2 * MB  # what the driver may keep for itself


@pytest.fixture
def pool(device: Device) -> DevicePool:
    return DevicePool(device, 16 * MB)


def export(pool: DevicePool, tensor: torch.Tensor) -> DeviceTensor:
    return pool.export(*pool.place(tensor))


def open_here(device: Device, peer: DevicePeer, nbytes: int = 16 * MB) -> OpenedPool:
    """A pool of the peer, opened by this process."""
    offer = DeviceOffer.unpack(peer.ask(b"M" + struct.pack("!Q", nbytes)))
    return OpenedPool(offer, device, owner="the peer", is_alive=process_is_alive(peer.process.pid))


def collected(opened: OpenedPool, count: int) -> list[int]:
    """Ended leases, as soon as there are `count` of them or after 10 s."""
    leases: list[int] = []
    deadline = time.monotonic() + 10
    while len(leases) < count and time.monotonic() < deadline:
        leases += opened.collect()
    return leases


def free_nbytes(device: Device) -> int:
    return int(torch.cuda.mem_get_info(device.ordinal)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_torch_computes_in_a_slot(pool: DevicePool, dtype: torch.dtype) -> None:
    made = pool.empty((2, 3, 4), dtype)
    assert made.device == pool.device.torch_device
    assert made.data_ptr() % 256 == 0
    assert made.fill_(1).cpu().equal(torch.ones(2, 3, 4, dtype=dtype))


def test_a_slot_is_reused_only_after_its_work(pool: DevicePool) -> None:
    whole = (pool.nbytes // 4,)
    made = pool.empty(whole).fill_(1.0)
    where = made.data_ptr()
    side = torch.cuda.Stream()
    torch.cuda._sleep(BUSY_MS * CYCLES_PER_MS)
    seen = made.sum(dtype=torch.float64)
    del made
    with torch.cuda.stream(side):  # nothing but the pool orders this stream behind the other
        again = pool.empty(whole).fill_(2.0)
    assert again.data_ptr() == where
    assert seen.item() == pool.nbytes // 4


def test_a_graph_keeps_its_slot(pool: DevicePool) -> None:
    factor = pool.empty((8,)).fill_(3.0)
    weight = torch.ones(8, device=factor.device, requires_grad=True)
    loss = (weight * factor).sum()
    del factor
    assert pool.num_live == 1
    loss.backward()
    assert pool.num_live == 0
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0] * 8


def test_a_peer_reads_the_bytes(pool: DevicePool, peer: DevicePeer) -> None:
    peer.open(pool.offer.pack(), os.getpid())
    made = pool.empty((1 << 20,)).fill_(1.5)
    peer.view(export(pool, made))
    assert peer.sums() == [1.5 * (1 << 20)]
    made.fill_(2.0)
    torch.cuda.synchronize()
    assert peer.sums() == [2.0 * (1 << 20)], "it is a view, not a copy"
    peer.ask(b"K")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_crosses(device: Device, pool: DevicePool, peer: DevicePeer, dtype: torch.dtype) -> None:
    peer.open(pool.offer.pack(), os.getpid())
    peer.view(export(pool, torch.arange(7).to(dtype).to(device.torch_device)))
    assert peer.sums() == [torch.arange(7).to(dtype).double().sum().item()]
    peer.ask(b"K")


def test_a_reader_waits_for_the_owners_work(device: Device, peer: DevicePeer) -> None:
    opened = open_here(device, peer)
    sent = peer.make(1024, 5.0, BUSY_MS)
    began = time.monotonic()
    seen = opened.view(sent, 1, deadline_s=30)
    assert time.monotonic() - began > 0.05, "the owner's stream was idle: the test shows nothing"
    assert seen.sum().item() == 5.0 * 1024
    del seen
    assert collected(opened, 1) == [1]
    assert opened.close()


def test_a_lease_ends_after_the_readers_kernels(device: Device, peer: DevicePeer) -> None:
    opened = open_here(device, peer)
    seen = opened.view(peer.make(1024, 5.0), 8, deadline_s=30)
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY_MS * CYCLES_PER_MS)
    total = seen.sum()
    del seen
    assert opened.collect() == [], "the kernels are still to run"
    assert not opened.close()
    assert collected(opened, 1) == [8]
    assert total.item() == 5.0 * 1024
    assert opened.close()


def test_events_are_used_again_across_streams(device: Device, pool: DevicePool, peer: DevicePeer) -> None:
    peer.open(pool.offer.pack(), os.getpid())
    made = pool.empty((1024,)).zero_()
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY_MS * CYCLES_PER_MS)
    made.fill_(1.0)
    first = export(pool, made)
    side = torch.cuda.Stream()
    other = pool.empty((1024,))
    with torch.cuda.stream(side):
        while export(pool, other).event != first.event:
            pass
    peer.view(first)
    assert peer.sums() == [1024.0]
    peer.ask(b"K")


def test_a_copy_within_one_device_is_not_a_peer_copy(device: Device) -> None:
    assert device.route(device.uuid) == "same device"
    assert device.route(b"?" * 16) == "host memory"


def test_a_process_cannot_open_its_own_pool(device: Device, pool: DevicePool) -> None:
    with pytest.raises(DeviceUnavailable, match="pool of this process itself"):
        OpenedPool(pool.offer, device, owner="us", is_alive=lambda: True)


@pytest.mark.parametrize("handle", [b"\0" * 64, b"\xff" * 64, bytes(range(64))], ids=["zeros", "ones", "count"])
def test_an_invalid_handle_is_refused(device: Device, pool: DevicePool, handle: bytes) -> None:
    offer = DeviceOffer(1, device.uuid, 16 * MB, handle, pool.offer.event_handles)
    with pytest.raises(DeviceUnavailable, match="host memory"):
        OpenedPool(offer, device, owner="the peer", is_alive=lambda: True)
    assert torch.ones(4, device=device.torch_device).sum().item() == 4, "the context has survived"


def test_the_size_comes_from_the_driver_and_not_from_the_peer(device: Device, peer: DevicePeer) -> None:
    offer = DeviceOffer.unpack(peer.ask(b"M" + struct.pack("!Q", 16 * MB)))
    larger = DeviceOffer(offer.pool, offer.device_uuid, 1 << 30, offer.memory_handle, offer.event_handles)
    with pytest.raises(BoundsError, match="not a separate allocation"):
        OpenedPool(larger, device, owner="the peer", is_alive=lambda: True)


def test_an_invalid_event_is_refused(device: Device, peer: DevicePeer) -> None:
    opened = open_here(device, peer)
    sent = peer.make(16, 1.0)
    offer = opened.offer
    opened.offer = DeviceOffer(
        offer.pool, offer.device_uuid, offer.nbytes, offer.memory_handle, (b"\xff" * 64,) * len(offer.event_handles)
    )
    with pytest.raises(DeviceFailed, match="cudaIpcOpenEventHandle"):
        opened.view(sent, 1, deadline_s=1)
    assert opened.close()


def test_a_killed_owner_gives_an_error_or_its_bytes_and_no_hang(device: Device) -> None:
    with DevicePeer(device.ordinal) as owner:
        opened = open_here(device, owner)
        sent = owner.make(1024, 5.0)
        seen = opened.view(sent, 1, deadline_s=30)
        owner.kill()
        with pytest.raises(PeerDied):
            opened.view(sent, 2, deadline_s=30)
        assert seen.sum().item() == 5.0 * 1024
        del seen
        assert collected(opened, 1) == [1]
        assert opened.close()


def test_an_owner_killed_before_its_work_has_run_is_noticed(device: Device) -> None:
    reader, owner = DevicePeer(device.ordinal), DevicePeer(device.ordinal)
    with reader, owner:
        reader.open(owner.ask(b"M" + struct.pack("!Q", 16 * MB)), owner.process.pid)
        reader.send(b"V" + struct.pack("!I", 1) + owner.make(1024, 5.0, 3000).pack())
        time.sleep(0.1)
        owner.kill()
        with pytest.raises(PeerDied):
            reader.receive(20)
        reader.ask(b"K", 20)


def test_a_killed_reader_leaves_no_lease_and_no_memory(device: Device, pool: DevicePool) -> None:
    before = 0
    for turn in range(3):
        with DevicePeer(device.ordinal) as reader:
            reader.open(pool.offer.pack(), os.getpid())
            slot, meta = pool.place(pool.empty((1 << 20,)).fill_(float(turn)))
            reader.view(pool.export(slot, meta))
            assert reader.sums() == [float(turn << 20)]
            reader.ask(b"B" + struct.pack("!I", BUSY_MS))
            reader.kill()
        del slot
        assert pool.num_live == 0
        before = before or free_nbytes(device)
        deadline = time.monotonic() + 10
        while free_nbytes(device) < before - SLACK_NBYTES and time.monotonic() < deadline:
            time.sleep(0.01)
        assert free_nbytes(device) >= before - SLACK_NBYTES


def test_a_closed_pool_returns_its_memory(device: Device) -> None:
    DevicePool(device, 2 * MB).close()  # the first one may make CUDA allocate for itself
    before = free_nbytes(device)
    pool = DevicePool(device, 256 * MB)
    assert free_nbytes(device) <= before - 256 * MB
    assert pool.close()
    assert free_nbytes(device) >= before - SLACK_NBYTES


def test_a_pool_that_does_not_fit_is_refused(device: Device) -> None:
    with pytest.raises(DeviceFailed, match="cudaMalloc"):
        DevicePool(device, 1 << 42)


def test_staging_through_a_pinned_segment_carries_the_bytes(device: Device) -> None:
    staging = PinnedStaging(device)
    segment = Segment.create(4 * MB)
    staging.register(segment.buffer)
    window = torch.frombuffer(segment.buffer, dtype=torch.float32)
    assert window.is_pinned()
    made = torch.randn(MB, device=device.torch_device)
    staging.to_host(made, window)
    staging.wait(deadline_s=30)
    assert torch.equal(window, made.cpu())
    assert torch.equal(staging.to_device(window), made)
    assert staging.collect() == 1
    staging.close(deadline_s=30)
    segment.close()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_peer_device_gets_a_copy(pool: DevicePool) -> None:
    with DevicePeer(1) as reader:
        assert pool.device.ordinal == 0
        reader.open(pool.offer.pack(), os.getpid())
        reader.view(export(pool, pool.empty((1024,)).fill_(3.0)))
        assert reader.sums() == [3.0 * 1024]
