"""One real server, an honest client of it, and hostile peers.

It imports only the runtime, so that it runs in every environment.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from attacked_server import attacked_server
from hostile_peer import Peer, Target
from lock_versions import differing
from mora_runtime import Client, Session

# What launcher and trainer do is tested where they are: in the control environment.
IS_CONTROL = importlib.util.find_spec("mora_launch") is not None
collect_ignore = [] if IS_CONTROL else ["http", "files", "processes"]


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Outside of the control environment most tests repeat its result: the libraries that read peers are the same."""
    if IS_CONTROL or differing():
        return
    for item in items:
        is_here = item.path.is_relative_to(Path(__file__).parent)
        if is_here and item.get_closest_marker("every_environment") is None:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    settings = {
        "environment": "any", "lock_hash": "x", "agents": {"adder": {"kind": "adder"}}, "arena_budget_nbytes": 64 << 20,
    }  # fmt: skip
    script = Path(__file__).parent / "agent_server.py"
    with attacked_server(tmp_path_factory.mktemp("hostile") / "run", script, settings) as started:
        yield started


@pytest.fixture
def session(target: Target) -> Iterator[Session]:
    with Session.open(target.run, "coordinator.0", arena_budget_nbytes=16 << 20) as opened:
        yield opened


@pytest.fixture
def honest(session: Session) -> Client:
    return session.connect("adder.0", deadline_s=10)


@pytest.fixture
def serves(session: Session) -> Callable[[], None]:
    """Asserts that a new honest client is greeted and served within a second, or as fast as later ones."""

    def serve_once() -> float:
        started_s = time.monotonic()
        client = session.connect("adder.0", deadline_s=10)
        returned = client.call("adder", "add_one", {"x": torch.ones(3)}, deadline_s=10).values["value"]
        assert torch.equal(returned.tensor(), torch.full((3,), 2.0))
        assert client.ping(5).num_tickets == 0
        spent_s = time.monotonic() - started_s
        client.close()
        return spent_s

    def check() -> None:
        spent_s = serve_once()
        # On a machine that others use, everything takes longer; after an attack that holds the server, only this does.
        assert spent_s < 1 or spent_s < 1 + 5 * min(serve_once() for _ in range(3))

    return check


@pytest.fixture
def peers(target: Target) -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(*arguments: str, **options: str | int) -> Peer:
        made.append(Peer(target, *arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for peer in made:
        peer.close()
