"""A server makes its GPU the current one before it loads, and ends when the GPU works no more. Nothing needs a GPU."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.errors import AgentFailed, PeerDied
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import Supervisor
from mora_runtime.wire.sockets import make_keys

HERE = Path(__file__).parent


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", lock=True) as directory:
        make_keys(directory)
        yield directory


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor(print) as opened:
        yield opened


@pytest.fixture(params=[True], ids=["trains"])
def server(request: pytest.FixtureRequest, run: RunDirectory, supervisor: Supervisor) -> RoleProcess:
    settings = {
        "role": "device.0", "name": "device", "run_dir": str(run.path), "device": "cuda:1",
        "ends_when_out_of_memory": request.param, "cudnn_benchmark": True, "arena_budget_nbytes": 64 << 20,
    }  # fmt: skip
    path = run.role_folder("device.0") / "settings.json"
    path.write_text(json.dumps(settings))
    command = [sys.executable, str(HERE / "gpu_server.py"), "--settings", str(path)]
    started = supervisor.start("device.0", command, variables={"OMP_NUM_THREADS": "1"}, output=None, folder=HERE)
    assert supervisor.wait_ready([started], deadline_s=120)
    return started


@pytest.fixture
def client(run: RunDirectory, server: RoleProcess) -> Iterator[Client]:
    with Session.open(run, "coordinator.0", arena_budget_nbytes=64 << 20, spill_budget_nbytes=0) as session:
        yield session.connect("device.0", deadline_s=30)


def test_the_gpu_is_the_current_one_before_agents_load(client: Client) -> None:
    reply = client.call("device", "at_load", {}, deadline_s=30)
    assert reply.values["value"] == ["cuda:1"]


def test_the_kernels_are_chosen_before_agents_load(client: Client) -> None:
    assert client.call("device", "searches", {}, deadline_s=30).values["value"] is True


@pytest.mark.parametrize("fault", ["kernel", "group", "memory"])
def test_a_server_whose_gpu_fails_ends_as_one_that_may_be_started_again(
    client: Client, server: RoleProcess, supervisor: Supervisor, fault: str
) -> None:
    with pytest.raises(PeerDied):
        client.call("device", "fail", {"kind": fault}, deadline_s=30)
    ended, deadline_s = [], time.monotonic() + 30
    while not ended and time.monotonic() < deadline_s:
        ended = supervisor.look(timeout_s=0.5)
    assert ended == [server]
    assert server.is_recoverable
    assert server.exit_cause().startswith("lost its device cuda:1: ")


def test_an_error_of_the_agent_alone_is_an_answer_and_the_server_continues(client: Client) -> None:
    with pytest.raises(AgentFailed, match="is not a fault of the device"):
        client.call("device", "fail", {"kind": "value"}, deadline_s=30)
    assert client.call("device", "at_load", {}, deadline_s=30).values["value"] == ["cuda:1"]


@pytest.mark.parametrize("server", [False], ids=["answers only"], indirect=True)
def test_a_request_that_is_too_large_for_a_serving_gpu_fails_alone(client: Client) -> None:
    with pytest.raises(AgentFailed, match="out of memory"):
        client.call("device", "fail", {"kind": "memory"}, deadline_s=30)
    assert client.call("device", "at_load", {}, deadline_s=30).values["value"] == ["cuda:1"]
