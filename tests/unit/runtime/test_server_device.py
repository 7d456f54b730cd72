"""A server makes its GPU the current one before it loads. No test here needs a GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mora_runtime import Client, RunDirectory, Session
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


@pytest.fixture
def server(run: RunDirectory, supervisor: Supervisor) -> RoleProcess:
    settings = {
        "role": "device.0", "name": "device", "run_dir": str(run.path), "device": "cuda:1",
        "arena_budget_nbytes": 64 << 20,
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
