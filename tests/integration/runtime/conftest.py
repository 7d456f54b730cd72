"""Real server processes for the runtime's tests.

Starting one imports torch, which takes seconds: two servers are shared by all tests (`client`, `other_server`), and a
test that harms a server starts its own with `start`.
"""

from collections.abc import Iterator

import pytest
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import Supervisor
from mora_runtime.wire.sockets import make_keys
from server_starter import Starter, starter


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path_factory.mktemp("runtime") / "run", lock=True) as directory:
        make_keys(directory)
        yield directory


@pytest.fixture(scope="session")
def servers(run: RunDirectory) -> Iterator[dict[str, RoleProcess]]:
    """The two servers that all tests share."""
    with Supervisor(print) as supervisor:
        start = starter(run, supervisor)
        started = {role: start(role, wait=False) for role in ("echo.0", "echo.1")}
        supervisor.wait_ready(list(started.values()), deadline_s=60)
        yield started


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Supervises this test's own servers, which end with the test."""
    with Supervisor(print) as opened:
        yield opened


@pytest.fixture
def start(run: RunDirectory, supervisor: Supervisor) -> Starter:
    """Starts servers for this test."""
    return starter(run, supervisor)


@pytest.fixture
def session(run: RunDirectory) -> Iterator[Session]:
    with Session.open(run, "coordinator.0", arena_budget_nbytes=64 << 20, spill_budget_nbytes=0) as opened:
        yield opened


@pytest.fixture
def client(servers: dict[str, RoleProcess], session: Session) -> Client:
    return session.connect("echo.0", deadline_s=10)


@pytest.fixture
def other_server(servers: dict[str, RoleProcess], session: Session) -> Client:
    return session.connect("echo.1", deadline_s=10)
