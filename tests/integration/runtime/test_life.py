"""How servers start and end, and that a killed client leaves nothing in them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.errors import RoleFailed
from mora_runtime.process.supervisor import Supervisor
from mora_runtime.process.supervisor_link import EXIT_ORPHANED
from server_starter import HERE, Starter, starter

HOLDER = """
import sys, torch
from mora_runtime import Session, RunDirectory
with Session.open(RunDirectory.open(sys.argv[1]), "coordinator.9") as session:
    client = session.connect("echo.0", deadline_s=30)
    held = [client.call("echo", "square", {"x": torch.ones(8)}, grad=["x"], deadline_s=10) for _ in range(3)]
    views = [reply.values["y"].tensor() for reply in held]
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_leases_and_tickets_of_a_killed_client_are_freed(client: Client, run: RunDirectory) -> None:
    before = client.ping(5)
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        # the server tells what it holds after it has answered, so the last of the three may still be missing
        deadline = time.monotonic() + 10
        while client.ping(5).num_tickets != before.num_tickets + 3 and time.monotonic() < deadline:
            pass
        assert client.ping(5).num_tickets == before.num_tickets + 3
        holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (after := client.ping(5)) and after.num_slots > before.num_slots and time.monotonic() < deadline:
        pass
    assert after.num_tickets == before.num_tickets
    assert after.num_slots <= before.num_slots


def test_a_failing_load_says_why_and_does_not_exit_with_zero(run: RunDirectory) -> None:
    with Supervisor(print) as supervisor:
        child = starter(run, supervisor)("failing.0", wait=False, options={"fail_to_load": True})
        with pytest.raises(
            RoleFailed,
            match=r"failing\.0 could not load its agents: FileNotFoundError: no such weights: absent\.safetensors",
        ):
            supervisor.wait_ready([child], deadline_s=60)
        assert child.process.returncode == 1


def test_a_second_server_of_a_running_role_is_refused_and_the_first_continues(
    client: Client, run: RunDirectory
) -> None:
    with Supervisor(print) as supervisor:
        child = starter(run, supervisor)("echo.0", wait=False)
        with pytest.raises(RoleFailed, match=r"^echo\.0 could not serve: another server of this role"):
            supervisor.wait_ready([child], deadline_s=60)
        assert child.process.returncode != 0
    assert client.call("echo", "count", {}, deadline_s=10).values["value"] > 0


def test_a_server_ends_with_zero_when_asked_to(start: Starter, session: Session) -> None:
    child = start("orderly.0")
    client = session.connect("orderly.0", deadline_s=10)
    pending = client.submit("echo", "work", {"seconds": 0.2}, deadline_s=10)
    while client.ping(5).busy != "echo.work":
        pass
    child.ask_to_stop()
    assert pending.result().values["value"] >= 0.2
    assert child.process.wait(10) == 0


def test_a_server_ends_when_its_launcher_is_gone(client: Client, run: RunDirectory, tmp_path: Path) -> None:
    settings = json.loads((run.role_folder("echo.0") / "settings.json").read_text())
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({**settings, "role": "orphan.0"}))
    ours, theirs = socket.socketpair()
    command = [
        sys.executable, str(HERE / "echo_server.py"), "--settings", str(path), "--supervisor-fd", str(theirs.fileno())
    ]  # fmt: skip
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True) as server:
        theirs.close()
        ours.settimeout(60)
        with ours.makefile() as lines:
            assert next(event for line in lines if (event := json.loads(line)["event"]) != "beat") == "ready"
        assert os.path.exists(run.socket("orphan.0", "doorbell"))
        ours.close()
        assert server.wait(2) == EXIT_ORPHANED
