"""Tensors of two servers on GPUs: they cross in device memory, with the numbers of one process.

`tests/integration/device` runs the same path on a fake device, with deaths and refusals.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mora_runtime import RunDirectory, Session
from mora_runtime.device.cuda_ipc import Device
from mora_runtime.errors import DeviceUnavailable, PeerDied
from mora_runtime.process.supervisor import Supervisor
from mora_runtime.tensors.tensor_store import DeviceRef, LeasedRef
from mora_runtime.wire.sockets import make_keys

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration" / "device"))

from device_chain import DEADLINE_S, NUMEL, Chain, Servers, ask, eventually, in_one_process

pytestmark = pytest.mark.gpu

X = torch.linspace(-1, 1, NUMEL)


@pytest.fixture
def run(device: Device, tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", lock=True) as directory:
        make_keys(directory)
        yield directory


@pytest.fixture
def servers(run: RunDirectory, device: Device) -> Iterator[Servers]:
    with Supervisor(print) as supervisor:
        yield Servers(run, supervisor, f"cuda:{device.ordinal}", {})


@pytest.fixture
def session(run: RunDirectory) -> Iterator[Session]:
    with Session.open(run, "coordinator.0", arena_budget_nbytes=16 << 20) as opened:
        yield opened


def assert_equal_to_one_process(chain: Chain, device: Device) -> None:
    loss, gradients = chain.step(X)
    expected_loss, expected = in_one_process(X, str(device.torch_device))
    assert loss == expected_loss
    for found, wanted in zip(gradients, expected, strict=True):
        assert torch.equal(found, wanted)


def test_gradients_of_two_servers_on_one_gpu_have_the_bits_of_one_process(
    servers: Servers, session: Session, device: Device
) -> None:
    servers.start("image.0", "video.0")
    chain = Chain(session, "image.0", "video.0")
    assert_equal_to_one_process(chain, device)  # staged, until the servers have opened each other's pool
    chain.introduced()
    before = [client.ping(DEADLINE_S).num_device for client in (chain.first, chain.second)]
    assert_equal_to_one_process(chain, device)
    after = [client.ping(DEADLINE_S).num_device for client in (chain.first, chain.second)]
    assert after == [count + 1 for count in before]


def test_the_coordinator_cannot_read_what_it_passes_on(servers: Servers, session: Session) -> None:
    servers.start("image.0", "video.0")
    chain = Chain(session, "image.0", "video.0")
    chain.introduced()
    ref = chain.double(X)
    assert isinstance(ref, DeviceRef)
    with pytest.raises(DeviceUnavailable):
        ref.tensor()
    assert ask(chain.second, "keep", y=ref)["value"] == pytest.approx((X * 2).double().sum().item(), abs=1e-6)


def test_a_full_pool_stages_through_pinned_memory(servers: Servers, session: Session) -> None:
    servers.start("image.0", "video.0", pool_nbytes=1)  # one granule: 2 MiB
    chain = Chain(session, "image.0", "video.0")
    chain.introduced()
    large = torch.ones(200_000)
    refs = [chain.double(large * number) for number in range(1, 5)]
    assert [type(ref) for ref in refs] == [DeviceRef, DeviceRef, LeasedRef, LeasedRef]
    assert [ask(chain.second, "keep", y=ref)["value"] for ref in refs] == [2.0 * k * 200_000 for k in range(1, 5)]


def test_every_lease_comes_back_from_idle_servers(servers: Servers, session: Session) -> None:
    servers.start("image.0", "video.0")
    chain = Chain(session, "image.0", "video.0")
    chain.introduced()

    def is_idle() -> bool:
        for client in (chain.first, chain.second):
            client.flush()
        return all(ask(client, "counts")["num_live"] == 0 for client in (chain.first, chain.second))

    assert eventually(is_idle)


def test_a_killed_owner_is_an_error_of_its_readers_call(servers: Servers, session: Session) -> None:
    owner, _ = servers.start("image.0", "video.0")
    chain = Chain(session, "image.0", "video.0")
    chain.introduced()
    ref = chain.double(X)
    servers.kill(owner)
    with pytest.raises(PeerDied):
        ask(chain.second, "keep", y=ref)
    assert ask(chain.second, "sum_kept")["value"] == []


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_server_on_another_gpu_gets_the_same_bits(run: RunDirectory, session: Session, device: Device) -> None:
    with Supervisor(print) as supervisor:
        Servers(run, supervisor, "cuda:0", {}).start("image.0")
        Servers(run, supervisor, "cuda:1", {}).start("video.0")
        chain = Chain(session, "image.0", "video.0")
        chain.introduced()
        assert_equal_to_one_process(chain, device)
