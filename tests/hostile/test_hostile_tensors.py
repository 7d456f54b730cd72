"""Faulty peer: its lies about tensors and descriptors give one named error each, no leak, no access to other memory."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile_peer import Peer, Target
from mora_runtime import Client
from mora_runtime.tensors.segment import Segment
from mora_runtime.wire.messages import InlineTensor, Result, WireTensor

Peers = Callable[..., Peer]
Serves = Callable[[], None]
SEGMENT_NBYTES = 32 << 10
LARGE_NBYTES = 16 << 10
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@pytest.fixture
def peer(peers: Peers) -> Peer:
    greeted = peers()
    greeted.greet()
    return greeted


@pytest.fixture
def segment(peer: Peer) -> Segment:
    made = Segment.create(SEGMENT_NBYTES)
    peer.offer(made.descriptor, SEGMENT_NBYTES)
    return made


def tensor(peer: Peer, **changes: object) -> WireTensor:
    fields = {"lease": 1, "owner": peer.name, "segment": 0, "offset": 0, "nbytes": 16, "dtype": 0, "shape": (4,)}
    return WireTensor(**{**fields, **changes})  # type: ignore[arg-type]


def large_tensor(peer: Peer) -> WireTensor:
    """Call a method whose result is in a slot of the server."""
    return tensor(peer, nbytes=LARGE_NBYTES, shape=(LARGE_NBYTES // 4,))


@pytest.mark.every_environment
def test_an_honest_tensor_of_this_file_is_served(peer: Peer, segment: Segment) -> None:
    segment.buffer[:16] = torch.arange(4.0).numpy().tobytes()
    answer = peer.ask(tensor(peer))
    assert isinstance(answer, Result)
    assert answer.values["value"] == InlineTensor(0, (4,), torch.arange(1.0, 5.0).numpy().tobytes())
    assert answer.released == [1]
    large = peer.ask(large_tensor(peer))
    assert isinstance(large, Result)
    assert large.values["value"].nbytes == LARGE_NBYTES


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": SEGMENT_NBYTES}, {"offset": SEGMENT_NBYTES + 1}, {"offset": 2**64 - 32}, {"offset": 2**64 - 64},
        {"offset": SEGMENT_NBYTES - 64, "nbytes": 128, "shape": (32,)}, {"nbytes": 15}, {"nbytes": 0},
        {"nbytes": 2**64 - 1}, {"offset": 32},
        {"dtype": 10}, {"dtype": 255}, {"dtype": 2**64 - 1}, {"shape": (2**63,)}, {"shape": (2**32, 2**32)},
        {"shape": (2**40,), "nbytes": 2**42}, {"shape": (5,)}, {"dtype": 3},
    ],
)  # fmt: skip
def test_a_tensor_outside_its_segment_is_refused(
    peer: Peer, segment: Segment, serves: Serves, changes: dict[str, object]
) -> None:
    assert peer.refused(tensor(peer, **changes)) == "bounds"
    serves()


@pytest.mark.parametrize(("shape", "nbytes"), [((), 4), ((0,), 0), ((3, 0), 0)])
def test_scalars_and_empty_tensors_pass(peer: Peer, segment: Segment, shape: tuple[int, ...], nbytes: int) -> None:
    assert isinstance(peer.ask(tensor(peer, shape=shape, nbytes=nbytes)), Result)


def test_a_segment_that_was_never_offered_is_stale(peer: Peer, segment: Segment) -> None:
    assert peer.refused(tensor(peer, segment=1)) == "stale"
    assert peer.refused(tensor(peer, owner="someone.0.1.else")) == "stale"


def test_the_segment_of_another_client_is_stale(peer: Peer, honest: Client) -> None:
    honest.call("adder", "add_one", {"x": torch.full((4000,), 42.0)}, deadline_s=10)
    owner = honest._store.identity
    assert [peer.refused(tensor(peer, owner=owner, segment=number)) for number in range(3)] == ["stale"] * 3


def test_a_slot_of_the_server_is_readable_only_with_a_lease(peer: Peer, segment: Segment, peers: Peers) -> None:
    answer = peer.ask(large_tensor(peer))
    assert isinstance(answer, Result)
    given = answer.values["value"]
    assert given.owner == peer.server
    other = peers("other.0.1.0000")
    other.greet()
    assert other.refused(given) == "stale"
    assert isinstance(peer.ask(given), Result)
    place = {"owner": peer.server, "segment": given.segment, "offset": given.offset}
    assert peer.refused(tensor(peer, **{**place, "offset": given.offset + 64})) == "stale"
    assert peer.refused(tensor(peer, **place, nbytes=1 << 20, shape=(1 << 18,))) == "bounds"


def test_a_slot_of_an_earlier_generation_is_stale(peer: Peer) -> None:
    assert peer.refused(tensor(peer, owner="adder.0.0.0123456789abcdef")) == "stale"


@pytest.mark.every_environment
def test_one_bad_tensor_among_good_ones_ends_the_leases_of_all(peer: Peer, segment: Segment) -> None:
    good, bad, late = tensor(peer), tensor(peer, lease=2, offset=32), tensor(peer, lease=3)
    assert peer.refused(good, bad, late) == "bounds"


def test_descriptors_that_are_not_sealed_memory_files_are_refused_and_closed(
    peer: Peer, target: Target, tmp_path: Path, serves: Serves
) -> None:
    unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 8192)
    smaller = os.memfd_create("smaller", os.MFD_ALLOW_SEALING)
    os.ftruncate(smaller, 4096)
    fcntl.fcntl(smaller, fcntl.F_ADD_SEALS, SEALS)
    reading, writing = os.pipe()
    folder = os.open(tmp_path, os.O_RDONLY)
    device = os.open("/dev/zero", os.O_RDWR)
    offered = [unsealed, smaller, reading, writing, folder, device]
    what = {os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in offered} - {"/dev/zero"}
    for number, descriptor in enumerate(offered):
        peer.offer(descriptor, 8192, segment=number)
        assert peer.refused(tensor(peer, segment=number)) == "segment"
        os.close(descriptor)
    assert not what & target.opened()
    serves()


def test_an_offer_in_the_name_of_another_reaches_only_the_offerer(peer: Peer, honest: Client) -> None:
    mine = Segment.create(4 << 20)
    mine.buffer[: 4 << 20] = torch.full((1 << 20,), 666.0).numpy().tobytes()
    peer.offer(mine.descriptor, 4 << 20, owner=honest._store.identity)
    peer.offer(mine.descriptor, 4 << 20, owner=peer.server)
    assert isinstance(peer.ask(method="count"), Result)
    returned = honest.call("adder", "add_one", {"x": torch.zeros(4000)}, deadline_s=10).values["value"]
    assert torch.equal(returned.tensor(), torch.ones(4000))


@pytest.mark.every_environment
def test_descriptors_of_a_peer_are_closed_when_it_leaves(peers: Peers, target: Target, honest: Client) -> None:
    peer = peers("brief.0.1.0000")
    peer.greet()
    made = Segment.create(4096)
    for number in range(50):
        peer.offer(made.descriptor, 4096, segment=number, owner=f"someone.{number}")
    assert isinstance(peer.ask(tensor(peer, owner="someone.7", segment=7)), Result)
    deadline = time.monotonic() + 30
    while target.num_descriptors_of(made) < 50 and time.monotonic() < deadline:  # read while the server waits for calls
        honest.call("adder", "count", {}, deadline_s=10)
    assert target.num_descriptors_of(made) >= 50  # and the one of the mapping that was read
    peer.close()
    deadline = time.monotonic() + 30
    while target.num_descriptors_of(made) and time.monotonic() < deadline:
        honest.call("adder", "count", {}, deadline_s=10)
    assert target.num_descriptors_of(made) == 0


def test_more_descriptors_than_a_peer_may_offer_are_closed(peer: Peer, target: Target, serves: Serves) -> None:
    made = Segment.create(4096)
    for number in range(1500):
        peer.offer(made.descriptor, 4096, segment=number)
    assert isinstance(peer.ask(tensor(peer, segment=5)), Result)
    assert peer.refused(tensor(peer, segment=1400)) == "stale"
    assert target.num_descriptors_of(made) <= 1026
    serves()
