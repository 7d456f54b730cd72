"""Real server processes for the runtime's tests.

Starting one imports torch, which takes seconds: two servers are shared by all tests (`client`, `other_server`), and a
test that harms a server starts its own with `start`.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mora_launch.child import Child
from mora_launch.supervisor import Supervisor
from mora_runtime import Client, Node, RunDirectory
from mora_runtime.sockets import make_keys

HERE = Path(__file__).parent
Starter = Callable[..., Child]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path_factory.mktemp("runtime") / "run", lock=True) as directory:
        make_keys(directory)
        yield directory


def starter(run: RunDirectory, supervisor: Supervisor) -> Starter:
    def start(role: str, *, wait: bool = True, **changes: Any) -> Child:
        settings = {
            "role": role,
            "name": role.partition(".")[0],
            "run_dir": str(run.path),
            "environment": "control",
            "lock_hash": "0123456789abcdef",
            "agents": {"echo": {"kind": "echo", "options": changes.pop("options", {})}},
            "arena_budget_nbytes": 64 << 20,
            **changes,
        }
        path = run.role_folder(role) / "settings.json"
        path.write_text(json.dumps(settings))
        command = [sys.executable, str(HERE / "echo_server.py"), "--settings", str(path)]
        child = supervisor.start(
            role, command, variables={"OMP_NUM_THREADS": "1"}, output=run.logs / f"{role}.out", folder=HERE
        )
        if wait:
            supervisor.wait_ready([child], deadline_s=60)
        return child

    return start


@pytest.fixture(scope="session")
def servers(run: RunDirectory) -> Iterator[dict[str, Child]]:
    """The two servers that all tests share."""
    with Supervisor(print) as supervisor:
        start = starter(run, supervisor)
        started = {role: start(role, wait=False) for role in ("echo.0", "echo.1")}
        supervisor.wait_ready(list(started.values()), deadline_s=60)
        yield started


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Of this test's own servers, which end with it."""
    with Supervisor(print) as opened:
        yield opened


@pytest.fixture
def start(run: RunDirectory, supervisor: Supervisor) -> Starter:
    """Start a server of this test's own."""
    return starter(run, supervisor)


@pytest.fixture
def node(run: RunDirectory) -> Iterator[Node]:
    with Node.open(run, "coordinator.0", arena_budget_nbytes=64 << 20) as opened:
        yield opened


@pytest.fixture
def client(servers: dict[str, Child], node: Node) -> Client:
    return node.connect("echo.0", deadline_s=10)


@pytest.fixture
def other_server(servers: dict[str, Child], node: Node) -> Client:
    return node.connect("echo.1", deadline_s=10)
