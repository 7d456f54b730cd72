"""Two servers on a fake device, which the tests of a module share, and a session that has no device."""

from collections.abc import Iterator

import pytest
from device_chain import FAKE, Chain, Servers
from mora_runtime import RunDirectory, Session
from mora_runtime.process.supervisor import Supervisor
from mora_runtime.wire.sockets import make_keys


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path_factory.mktemp("device") / "run", lock=True) as directory:
        make_keys(directory)
        yield directory


@pytest.fixture(scope="session")
def shared(run: RunDirectory) -> Iterator[None]:
    """The servers `image.0` and `video.0`, shared by tests that harm none."""
    with Supervisor(print) as supervisor:
        Servers(run, supervisor, "cpu", FAKE).start("image.0", "video.0")
        yield


@pytest.fixture
def servers(run: RunDirectory) -> Iterator[Servers]:
    """Starts servers for one test."""
    with Supervisor(print) as supervisor:
        yield Servers(run, supervisor, "cpu", FAKE)


@pytest.fixture
def session(run: RunDirectory) -> Iterator[Session]:
    with Session.open(run, "coordinator.0", arena_budget_nbytes=16 << 20) as opened:
        yield opened


@pytest.fixture
def chain(shared: None, session: Session) -> Chain:
    made = Chain(session, "image.0", "video.0")
    made.introduced()
    return made
