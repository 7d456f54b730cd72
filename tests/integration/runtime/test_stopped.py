"""Processes that are stopped for longer than any timeout of the transport and then continue (a debugger, a suspended
machine), and clocks that are set back."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.limits import HEARTBEAT_INTERVAL_S
from mora_runtime.process.supervisor import Supervisor
from server_starter import starter

pytestmark = pytest.mark.timeout(240)
HEARTBEAT_TIMEOUT_S = 2.0
STOPPED_S = HEARTBEAT_INTERVAL_S + HEARTBEAT_TIMEOUT_S + 4.0
CLIENT = """
import sys
from pathlib import Path
import torch
from mora_runtime import Session, RunDirectory
with Session.open(RunDirectory.open(Path(sys.argv[1])), "client.9", heartbeat_timeout_s=float(sys.argv[2])) as session:
    client = session.connect("echo.1", deadline_s=10)
    for line in sys.stdin:
        value = client.call("echo", "add_one", {"x": torch.full((1000,), float(line))}, deadline_s=10).values["value"]
        print(value.tensor().max().item(), client.ping(5).num_tickets, flush=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", lock=True) as made:
        yield made


@pytest.fixture
def other_client(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CLIENT, str(run.path), str(HEARTBEAT_TIMEOUT_S)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def ask(process: subprocess.Popen[str], number: int) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{number}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def serves(client: Client) -> None:
    """Assert an answer long before any timeout of the transport or of a stopped peer ends."""
    value = client.call("echo", "add_one", {"x": torch.ones(1000)}, deadline_s=HEARTBEAT_TIMEOUT_S).values["value"]
    assert torch.equal(value.tensor(), torch.full((1000,), 2.0))
    assert client.ping(HEARTBEAT_TIMEOUT_S).num_tickets == 0


def test_a_server_and_a_client_continue_after_being_stopped_beyond_the_timeout(
    run: RunDirectory, request: pytest.FixtureRequest
) -> None:
    timeout = {"heartbeat_timeout_s": HEARTBEAT_TIMEOUT_S}
    with Supervisor(print, frozen_after_s=None) as supervisor, Session.open(run, "client.0", **timeout) as session:
        stopped, other = (starter(run, supervisor)(role, **timeout) for role in ("echo.0", "echo.1"))
        client, client_of_other = (session.connect(role, deadline_s=10) for role in ("echo.0", "echo.1"))
        stopped_client = request.getfixturevalue("other_client")
        assert ask(stopped_client, 1) == "2.0 0"
        first = client.call("echo", "count", {}, deadline_s=10).values["value"]

        stopped.process.send_signal(signal.SIGSTOP)
        stopped_client.send_signal(signal.SIGSTOP)
        pending = client.submit("echo", "count", {}, deadline_s=STOPPED_S + 60)
        until_s = time.monotonic() + STOPPED_S
        while time.monotonic() < until_s:
            serves(client_of_other)
            supervisor.look(timeout_s=1.0)
        assert not pending.has_ended
        stopped.process.send_signal(signal.SIGCONT)
        stopped_client.send_signal(signal.SIGCONT)

        assert pending.result().values["value"] == first + 1
        serves(client)
        assert client.call("echo", "count", {}, deadline_s=10).values["value"] == first + 2, "the call ran once"
        assert ask(stopped_client, 4) == "5.0 0"
        assert [child.process.poll() for child in (stopped, other)] == [None, None]


def test_clocks_set_back_by_an_hour_change_nothing(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    with Supervisor(print, frozen_after_s=3.0) as supervisor, Session.open(run, "client.0") as session:
        child = starter(run, supervisor)("echo.0")
        client = session.connect("echo.0", deadline_s=10)
        pending = client.submit("echo", "work", {"seconds": 1.0}, deadline_s=20)
        client.call("echo", "set_clock_back", {"seconds": 3600.0}, deadline_s=10)
        clock = time.time
        monkeypatch.setattr(time, "time", lambda: clock() - 3600.0)
        assert 1.0 <= pending.result().values["value"] < 10
        serves(client)
        until_s = time.monotonic() + 5  # longer than one that seems frozen is left alone
        while time.monotonic() < until_s:
            assert supervisor.look(timeout_s=0.5) == []
        assert child.process.poll() is None
