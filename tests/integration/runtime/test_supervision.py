"""What the launcher notices about a real server: death, freezing, and processes that it leaves behind."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mora_launch.jobs.run_status import StatusWriter, read_status
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import RolesEnded, Supervisor
from mora_runtime.rpc.client import wait_for_messages
from server_starter import starter
from slack import slack

pytestmark = pytest.mark.timeout(120)
_AFTERMATH_S = 0.5  # of the supervisor: in which it looks for the first cause


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", lock=True) as made:
        yield made


def ended(supervisor: Supervisor, child: RoleProcess) -> tuple[str, float]:
    """Wait for the unexpected end of a server; returns its description and the seconds until it came."""
    started_s = time.monotonic()
    with pytest.raises(RolesEnded) as caught:
        supervisor.wait_finished([child])
    assert caught.value.is_recoverable
    return str(caught.value), time.monotonic() - started_s


def test_a_killed_server_is_noticed_within_half_a_second(run: RunDirectory) -> None:
    with Supervisor(print) as supervisor:
        child = starter(run, supervisor)("echo.0")
        child.process.send_signal(signal.SIGKILL)
        account, spent_s = ended(supervisor, child)
    assert account.startswith("echo.0 was killed by SIGKILL, while the job was running")
    assert spent_s < (0.5 + _AFTERMATH_S) * slack()


def test_a_death_is_noticed_and_a_tool_that_keeps_the_dead_servers_link_open_ends_too(run: RunDirectory) -> None:
    with Supervisor(print) as supervisor:
        child = starter(run, supervisor)("echo.0", options={"fork_sleeper": True})
        (sleeper,) = psutil.Process(child.process.pid).children()
        os.kill(child.process.pid, signal.SIGKILL)
        ended(supervisor, child)
        assert psutil.wait_procs([sleeper], timeout=5)[1] == []


@pytest.mark.parametrize("frozen_by", ["a signal", "sleep with the interpreter lock"])
def test_a_frozen_server_is_killed_and_named(run: RunDirectory, frozen_by: str) -> None:
    with Supervisor(print, frozen_after_s=3.0) as supervisor, Session.open(run, "client.0") as session:
        child = starter(run, supervisor)("echo.0")
        if frozen_by == "a signal":
            child.process.send_signal(signal.SIGSTOP)
        else:
            session.connect("echo.0", deadline_s=10).submit("echo", "hold_lock", {"busy": False}, deadline_s=60)
        account, spent_s = ended(supervisor, child)
    assert "echo.0 froze: it " in account
    assert "and was killed, while the job was running" in account
    assert spent_s < 15 * slack()


def test_a_server_that_computes_with_the_interpreter_lock_is_left_alone(run: RunDirectory) -> None:
    with Supervisor(print, frozen_after_s=3.0) as supervisor, Session.open(run, "client.0") as session:
        child = starter(run, supervisor)("echo.0")
        client: Client = session.connect("echo.0", deadline_s=10)
        pending = client.submit("echo", "hold_lock", {"busy": True}, deadline_s=60)

        def has_answered() -> bool:
            wait_for_messages([client], timeout_s=0.0)
            return pending.has_ended

        looked_until(supervisor, has_answered)
        assert child.process.poll() is None
        assert pending.result().values["value"] > 4, "longer than a frozen one would have been left alone"


def test_a_launcher_that_was_stopped_itself_kills_no_server(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    with Supervisor(print, frozen_after_s=3.0) as supervisor:
        child = starter(run, supervisor)("echo.0")
        supervisor.look(timeout_s=0.0)
        clock = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 3600)  # as after an hour of SIGSTOP
        supervisor.look(timeout_s=0.0)
        assert child.process.poll() is None


def test_heartbeats_report_a_servers_work_and_the_status_file_shows_it(run: RunDirectory) -> None:
    writer = StatusWriter(run.path, "train")
    with Supervisor(print, frozen_after_s=30.0, observe=writer.observe) as supervisor:
        child = starter(run, supervisor)("echo.0")
        looked_until(supervisor, lambda: "num_calls" in child.vitals)
        looked_until(supervisor, lambda: bool(read_status(run.path).roles[0].vitals))
        (role,) = read_status(run.path).roles
        assert (role.role, role.state, role.pid) == ("echo.0", "ready", child.process.pid)
        assert role.vitals["rss_nbytes"] > 1 << 20
        assert role.vitals["num_fds"] == len(os.listdir(f"/proc/{child.process.pid}/fd"))
        assert role.last_life_ts is not None
        assert time.time() - role.last_life_ts < 10
    writer.end("finished")
    assert json.loads((run.path / "status.json").read_text())["state"] == "finished"


def looked_until(supervisor: Supervisor, found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        supervisor.look(timeout_s=0.2)


def test_a_supervisor_leaves_no_descriptor_open(run: RunDirectory) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with Supervisor(print) as supervisor:
            child = starter(run, supervisor)("echo.0")
            child.process.send_signal(signal.SIGKILL)
            ended(supervisor, child)
            supervisor.discard([child])
            starter(run, supervisor)("echo.0")
    assert len(os.listdir("/proc/self/fd")) == before
