"""Faulty peer: forged device pools and tensors in them, against a server with a fake device; and a hostile reader."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attacked_server import attacked_server
from hostile_peer import Peer, Target
from mora_runtime import Client, Session
from mora_runtime.limits import MAX_NUM_DEVICE_POOLS
from mora_runtime.wire.codec import decode
from mora_runtime.wire.device_tensor import DeviceOffer
from mora_runtime.wire.doorbell import OfferedPool
from mora_runtime.wire.messages import (
    Call,
    Failure,
    Message,
    PoolOpened,
    Release,
    Result,
    WireDeviceTensor,
)

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "unit" / "runtime"))

from fake_device import FakeDevice  # noqa: E402

MB = 1 << 20
NUMEL = 8192
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server whose device is the fake; it is called `adder` as the helpers expect."""
    settings = {"device_pool_nbytes": 4 * MB, "arena_budget_nbytes": 16 * MB}
    script = TESTS / "integration" / "device" / "device_server.py"
    variables = {"FAKE_ROUTE": "same device"}
    with attacked_server(tmp_path_factory.mktemp("pools") / "run", script, settings, variables) as started:
        yield started


class Forger:
    """A peer with a fake device of its own, whose offers and tensors a test may change."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.device = FakeDevice()
        self.address = self.device.allocate(4 * MB)
        event = self.device.new_event(shared=True)
        self.offer = DeviceOffer(
            77, self.device.uuid, 4 * MB, self.device.memory_handle(self.address), (self.device.event_handle(event),)
        )
        self.process = os.pidfd_open(os.getpid())
        self._last_id = 0

    def give(self, owner: str | None = None, process: int | None = None, **changes: Any) -> None:
        """Offer the pool, with some fields changed."""
        assert self.peer.doorbell is not None
        offer = dataclasses.replace(self.offer, **changes)
        self.peer.doorbell.send_pool(OfferedPool(owner or self.peer.name, offer, process or self.process))

    def tensor(self, **changes: Any) -> WireDeviceTensor:
        honest = WireDeviceTensor(1, self.peer.name, 77, 0, 0, 4 * NUMEL, 0, (NUMEL,))
        return dataclasses.replace(honest, **changes)

    def ask(self, method: str, onward: dict[str, str] | None = None, **arguments: Any) -> Result | Failure:
        self._last_id += 1
        self.peer.send(Call(self._last_id, "stage", method, arguments, None, None, False, [], None, onward))
        answer = self.peer.receive(DEADLINE_S)
        assert isinstance(answer, Result | Failure)
        return answer

    def refused(self, tensor: WireDeviceTensor) -> str:
        """Error code of a call with this tensor; its lease comes back with the refusal."""
        answer = self.ask("keep", y=tensor)
        assert isinstance(answer, Failure)
        assert answer.released == [tensor.lease]
        return answer.code

    def told(self) -> list[Message]:
        """What the server has told through the doorbell until it answered."""
        self.ask("drop")
        assert self.peer.doorbell is not None
        found = []
        while (frame := self.peer.doorbell.read()) is not None:
            found.append(decode(frame))
        return found


@pytest.fixture
def forger(peers: Callable[..., Peer]) -> Iterator[Forger]:
    peer = peers()
    peer.greet()
    made = Forger(peer)
    yield made
    os.close(made.process)


@pytest.fixture
def serves(honest: Client) -> Iterator[None]:
    """An honest client of the same server works as before, and the server has only its own memory open."""
    yield
    x = torch.ones(NUMEL)
    assert torch.equal(honest.call("stage", "double", {"x": x}, deadline_s=DEADLINE_S).values["y"].tensor(), x * 2)


def test_an_honest_offer_of_this_file_is_accepted_and_read(forger: Forger, serves: None) -> None:
    forger.give()
    assert PoolOpened(forger.peer.name, 77, forger.peer.server) in forger.told()
    answer = forger.ask("keep", y=forger.tensor())
    assert isinstance(answer, Result)
    assert answer.values == {"value": 0.0}
    forger.ask("drop")


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 4 * MB}, {"offset": 4 * MB - 64}, {"offset": 32}, {"offset": 2**64 - 64}, {"nbytes": 4},
        {"nbytes": 2**64 - 1}, {"shape": (NUMEL + 1,)}, {"shape": (2**32, 2**32)}, {"dtype": 10}, {"dtype": 2**64 - 1},
        {"event": 1}, {"event": 2**64 - 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_tensor_outside_the_pool_is_refused(forger: Forger, serves: None, changes: dict[str, Any]) -> None:
    forger.give()
    assert forger.refused(forger.tensor(**changes)) == "bounds"


def test_a_pool_that_was_never_offered_is_stale(forger: Forger, serves: None) -> None:
    assert forger.refused(forger.tensor()) == "stale"
    forger.give()
    assert forger.refused(forger.tensor(pool=78)) == "stale"
    assert forger.refused(forger.tensor(owner="someone.0.1.else")) == "stale"


def test_an_unknown_handle_is_not_accepted(forger: Forger, serves: None) -> None:
    forger.give(memory_handle=b"\xff" * 64)
    assert forger.told() == []
    assert forger.refused(forger.tensor()) == "device_unavailable"


def test_a_pool_that_claims_more_than_its_allocation_is_not_accepted(forger: Forger, serves: None) -> None:
    forger.give(nbytes=1 << 30)
    assert forger.told() == []
    assert forger.refused(forger.tensor(offset=1 << 29)) == "device_unavailable"


def test_a_pool_of_an_unknown_device_is_not_accepted(forger: Forger, serves: None) -> None:
    forger.give(device_uuid=b"?" * 16)
    assert forger.told() == []
    assert forger.refused(forger.tensor()) == "device_unavailable"


def test_an_invalid_event_fails_the_call_and_not_the_server(forger: Forger, serves: None) -> None:
    forger.give(event_handles=(b"\xff" * 64,))
    assert forger.refused(forger.tensor()) == "device_failed"


def test_a_descriptor_that_is_no_process_is_refused(forger: Forger, target: Target, serves: None) -> None:
    reading, writing = os.pipe()
    forger.give(process=reading)
    assert forger.told() == []
    assert forger.refused(forger.tensor()) == "stale"
    assert target.num_open(reading) == 0, "the server keeps no descriptor of it"
    os.close(reading)
    os.close(writing)


def test_the_pool_of_a_process_that_has_ended_is_not_read(forger: Forger, serves: None) -> None:
    with subprocess.Popen(["sleep", "600"]) as ended:
        process = os.pidfd_open(ended.pid)
        ended.kill()
    forger.give(process=process)
    os.close(process)
    forger.told()
    assert forger.refused(forger.tensor()) == "peer_died"


def test_offers_above_the_limit_are_closed(forger: Forger, target: Target, serves: None) -> None:
    forger.told()
    before = target.num_descriptors()
    for number in range(MAX_NUM_DEVICE_POOLS + 20):
        forger.give(pool=number, memory_handle=b"\xff" * 64)
    forger.told()
    assert target.num_descriptors() <= before + MAX_NUM_DEVICE_POOLS
    assert forger.refused(forger.tensor(pool=MAX_NUM_DEVICE_POOLS + 5)) == "stale"


def test_an_offer_in_the_servers_own_name_is_ignored(forger: Forger, serves: None) -> None:
    forger.give(owner=forger.peer.server)
    assert forger.told() == []
    assert forger.refused(forger.tensor(owner=forger.peer.server)) == "stale"


def test_an_offer_in_the_name_of_another_reaches_only_the_offerer(forger: Forger, honest: Client, serves: None) -> None:
    forger.give(owner=honest._store.identity)
    assert isinstance(forger.ask("keep", y=forger.tensor(owner=honest._store.identity)), Result)
    forger.ask("drop")


def own_pool(forger: Forger) -> int:
    """Number of the server's own pool."""
    assert forger.peer.doorbell is not None
    forger.ask("drop")
    forger.peer.doorbell.read()
    (offered,) = [each for each in forger.peer.doorbell.take_offers() if isinstance(each, OfferedPool)]
    offered.close()
    return offered.offer.pool


def test_device_memory_of_the_server_is_readable_only_with_a_lease(forger: Forger, serves: None) -> None:
    pool = own_pool(forger)
    forger.peer.send(PoolOpened(forger.peer.server, pool, "reader.0.1.x"))
    forger.give()
    answer = forger.ask("double", {"y": "reader.0.1.x"}, x=forger.tensor())
    assert isinstance(answer, Result)
    given = answer.values["y"]
    assert isinstance(given, WireDeviceTensor)
    assert forger.refused(dataclasses.replace(given, offset=given.offset + 1024)) == "stale"
    assert forger.refused(dataclasses.replace(given, pool=pool ^ 1)) == "stale"
    assert forger.refused(dataclasses.replace(given, nbytes=4 * MB, shape=(MB,))) == "bounds"
    assert isinstance(forger.ask("keep", y=given), Result)
    forger.ask("drop")
    forger.peer.send(Release([given.lease]))
    assert forger.refused(given) == "stale", "the lease has been given back"


def test_a_release_that_comes_late_or_twice_ends_no_other_lease(forger: Forger, serves: None) -> None:
    pool = own_pool(forger)
    forger.peer.send(PoolOpened(forger.peer.server, pool, "reader.0.1.x"))
    forger.give()
    leases = []
    for _ in range(3):
        answer = forger.ask("double", {"y": "reader.0.1.x"}, x=forger.tensor())
        assert isinstance(answer, Result)
        leases.append(answer.values["y"])
        forger.peer.send(Release([leases[0].lease, leases[0].lease, 2**64 - 1]))
    assert leases[1].offset != leases[2].offset, "the second tensor's slot was not used again"
    assert isinstance(forger.ask("keep", y=leases[1]), Result)
    assert isinstance(forger.ask("keep", y=leases[2]), Result)
    forger.ask("drop")


@pytest.mark.parametrize("which", ["another pool", "another owner", "an old generation"])
def test_an_acceptance_of_another_pool_opens_no_way(forger: Forger, serves: None, which: str) -> None:
    pool = own_pool(forger)
    server = forger.peer.server
    owner, number = {
        "another pool": (server, pool ^ 1), "another owner": ("someone.0.1.x", pool),
        "an old generation": (server.replace(".1.", ".0."), pool),
    }[which]  # fmt: skip
    forger.peer.send(PoolOpened(owner, number, "reader.0.1.x"))
    forger.give()
    answer = forger.ask("double", {"y": "reader.0.1.x"}, x=forger.tensor())
    assert isinstance(answer, Result)
    assert not isinstance(answer.values["y"], WireDeviceTensor), "the tensor is staged"


def test_a_flood_of_readers_is_bounded_and_the_last_ones_count(forger: Forger, serves: None) -> None:
    pool = own_pool(forger)
    for number in range(2000):
        forger.peer.send(PoolOpened(forger.peer.server, pool, f"reader.{number}.1.x"))
    forger.give()
    ways = [
        type(answer.values["y"]) is WireDeviceTensor
        for name in ("reader.0.1.x", "reader.1999.1.x")
        if isinstance(answer := forger.ask("double", {"y": name}, x=forger.tensor()), Result)
    ]
    assert ways == [False, True]


def test_a_peers_pools_are_closed_when_it_leaves(peers: Callable[..., Peer], session: Session) -> None:
    honest = session.connect("adder.0", deadline_s=10)

    def num_now() -> int:
        found: int = honest.call("stage", "counts", {}, deadline_s=DEADLINE_S).values["num_opened"]
        return found

    num_open = num_now()
    peer = peers("brief.0.1.0000")
    peer.greet()
    forger = Forger(peer)
    forger.give()
    assert isinstance(forger.ask("keep", y=forger.tensor()), Result)
    assert num_now() == num_open + 1
    peer.close()
    honest.call("stage", "drop", {}, deadline_s=DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while num_now() != num_open and time.monotonic() < deadline:
        pass
    assert num_now() == num_open
    os.close(forger.process)
