"""Real server processes for the runtime's tests."""

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


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", lock=True) as directory:
        make_keys(directory)
        yield directory


@pytest.fixture
def start(run: RunDirectory) -> Iterator[Starter]:
    """Start a named server; all of them end with the test."""
    with Supervisor(print) as supervisor:

        def start_one(role: str, *, wait: bool = True, **changes: Any) -> Child:
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

        yield start_one


@pytest.fixture
def node(run: RunDirectory) -> Iterator[Node]:
    with Node.open(run, "coordinator.0", arena_budget_nbytes=64 << 20) as opened:
        yield opened


@pytest.fixture
def client(start: Starter, node: Node) -> Client:
    start("echo.0")
    return node.connect("echo.0", deadline_s=10)
