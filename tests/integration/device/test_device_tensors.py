"""Tensors in device memory between two servers, passed on by a coordinator that cannot open it."""

import pytest
import torch
from device_chain import DEADLINE_S, NUMEL, Chain, Servers, ask, eventually, in_one_process
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.errors import DeviceUnavailable
from mora_runtime.tensors.tensor_store import DeviceRef, LeasedRef

X = torch.linspace(-1, 1, NUMEL)


def counts(client: Client) -> dict[str, int]:
    return ask(client, "counts")


def ways(client: Client) -> dict[str, int]:
    pong = client.ping(DEADLINE_S)
    return {name: getattr(pong, name) for name in pong._fields if name.startswith("num_")}


def test_gradients_over_device_memory_have_the_bits_of_one_process(chain: Chain) -> None:
    before = ways(chain.first), ways(chain.second)
    loss, gradients = chain.step(X)
    expected_loss, expected = in_one_process(X)
    assert loss == expected_loss
    for found, wanted in zip(gradients, expected, strict=True):
        assert torch.equal(found, wanted)
    after = ways(chain.first), ways(chain.second)
    assert after[0]["num_device"] == before[0]["num_device"] + 1, "O_1 crossed in device memory"
    assert after[1]["num_device"] == before[1]["num_device"] + 1, "dL/dO_1 crossed in device memory"


def test_the_coordinator_passes_a_tensor_on_that_it_cannot_read(chain: Chain) -> None:
    ref = chain.double(X)
    assert isinstance(ref, DeviceRef)
    assert (ref.shape, ref.dtype, ref.nbytes) == ((NUMEL,), torch.float32, 4 * NUMEL)
    with pytest.raises(DeviceUnavailable, match=r"image\.0.*can only pass on"):
        ref.tensor()
    assert ask(chain.second, "keep", y=ref)["value"] == (X * 2).double().sum().item()
    ask(chain.second, "drop")


def test_a_tensor_that_the_coordinator_reads_is_staged(chain: Chain) -> None:
    before = ways(chain.first)
    ref = ask(chain.first, "double", x=X)["y"]
    assert isinstance(ref, LeasedRef)
    assert torch.equal(ref.tensor(), X * 2)
    after = ways(chain.first)
    assert after["num_staged"] == before["num_staged"] + 1
    assert after["num_device"] == before["num_device"]


def test_a_small_tensor_stays_inside_the_message(chain: Chain) -> None:
    before = ways(chain.second)
    reply = chain.loss(chain.double(X))
    assert float(reply.values["loss"].tensor()) > 0
    assert ways(chain.second)["num_inline"] == before["num_inline"] + 1


def test_a_tensor_returns_to_its_owner_in_place(chain: Chain) -> None:
    ref = chain.double(X)
    assert isinstance(ref, DeviceRef)
    assert ask(chain.first, "keep", y=ref)["value"] == (X * 2).double().sum().item()
    ask(chain.first, "drop")


def test_a_view_sees_the_owners_memory_until_its_lease_ends(chain: Chain) -> None:
    refs = [chain.double(X * number) for number in range(1, 6)]
    sums = [ask(chain.second, "keep", y=ref)["value"] for ref in refs]
    del refs
    for number in range(6, 12):  # tensors that would reuse a slot that was given back too early
        ask(chain.second, "double", x=chain.double(X * number))
    assert ask(chain.second, "sum_kept")["value"] == sums
    ask(chain.second, "drop")


def test_idle_servers_give_every_lease_back(chain: Chain) -> None:
    for _ in range(3):
        chain.step(X)

    def is_idle() -> bool:
        for client in (chain.first, chain.second):
            client.flush()
        return counts(chain.first)["num_live"] == 0 and counts(chain.second)["num_live"] == 0

    assert eventually(is_idle), (counts(chain.first), counts(chain.second))
    assert not chain.first.peer.exports
    assert not chain.second.peer.exports


def test_a_lease_ends_without_another_call_once_the_work_has_run(chain: Chain) -> None:
    ref = chain.double(X)
    ask(chain.second, "keep", y=ref)
    del ref
    ask(chain.second, "hold", seconds=0.5)
    ask(chain.second, "drop")
    assert len(chain.second.peer.exports) == 1, "kernels that are still to run may read the tensor"
    # only a message that the server sends by itself can end the lease now; pings let it arrive
    assert eventually(lambda: chain.second.ping(DEADLINE_S) is not None and not chain.second.peer.exports)


def test_a_full_pool_stages_and_counts(run: RunDirectory, servers: Servers, session: Session) -> None:
    servers.start("small.0", "reader.0", pool_nbytes=1)  # one granule: 2 MiB
    chain = Chain(session, "small.0", "reader.0")
    chain.introduced()
    large = torch.ones(200_000)
    refs = [chain.double(large * number) for number in range(1, 5)]
    assert [type(ref) for ref in refs] == [DeviceRef, DeviceRef, LeasedRef, LeasedRef]
    assert ways(chain.first)["num_pool_full"] == 2
    for number, ref in enumerate(refs, 1):
        assert ask(chain.second, "keep", y=ref)["value"] == 2.0 * number * 200_000
    del refs, ref
    ask(chain.second, "drop")

    def has_room() -> bool:
        chain.second.flush()
        chain.first.flush()
        return isinstance(chain.double(large), DeviceRef)

    assert eventually(has_room), "the pool is used again after its leases have ended"


def test_a_peer_device_gets_copies_with_the_same_bits(servers: Servers, session: Session) -> None:
    servers.start("near.0", "far.0", FAKE_ROUTE="peer device")
    chain = Chain(session, "near.0", "far.0")
    chain.introduced()
    before = counts(chain.second)["num_copied"]
    loss, gradients = chain.step(X)
    expected_loss, expected = in_one_process(X)
    assert loss == expected_loss
    assert all(torch.equal(found, wanted) for found, wanted in zip(gradients, expected, strict=True))
    assert counts(chain.second)["num_copied"] == before + 1


def test_a_reader_on_a_device_out_of_reach_gets_staged_tensors(
    shared: None, servers: Servers, session: Session
) -> None:
    servers.start("hidden.0", FAKE_UUID="another device!!")
    chain = Chain(session, "image.0", "hidden.0")
    for _ in range(3):
        loss, gradients = chain.step(X)
    expected_loss, expected = in_one_process(X)
    assert loss == expected_loss
    assert all(torch.equal(found, wanted) for found, wanted in zip(gradients, expected, strict=True))
    assert counts(chain.second)["num_opened"] == 0
    assert ways(chain.second)["num_device"] == 0
    assert ways(chain.second)["num_staged"] > 0


def test_without_a_pool_tensors_are_shared_as_before(shared: None, servers: Servers, session: Session) -> None:
    servers.start("plain.0", pool_nbytes=0)
    chain = Chain(session, "image.0", "plain.0")
    for _ in range(3):
        loss, _ = chain.step(X)
    assert loss == in_one_process(X)[0]
    assert ways(chain.second)["num_device"] == ways(chain.second)["num_staged"] == 0
    assert ways(chain.second)["num_shared"] > 0


def test_a_new_generation_of_the_coordinator_drops_the_pools_of_the_old_one(
    run: RunDirectory, servers: Servers
) -> None:
    servers.start("old.0", "new.0")
    for generation in (1, 2, 3):
        with Session.open(run, "coordinator.7", generation, arena_budget_nbytes=16 << 20) as session:
            chain = Chain(session, "old.0", "new.0")
            chain.introduced()
            assert eventually(lambda: counts(chain.second)["num_opened"] == 1), counts(chain.second)  # noqa: B023
            kept = chain.double(X)
            ask(chain.second, "keep", y=kept)
            ask(chain.second, "drop")
    with Session.open(run, "coordinator.8", arena_budget_nbytes=16 << 20) as session:
        last = session.connect("new.0", deadline_s=DEADLINE_S)
        first = session.connect("old.0", deadline_s=DEADLINE_S)
        assert eventually(lambda: counts(last)["num_opened"] <= 1)
        assert eventually(lambda: counts(first)["num_live"] == 0)
