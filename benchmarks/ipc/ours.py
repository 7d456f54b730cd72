"""Mora's echoes, through the public API and against real server processes."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mora_launch.environments.venvs import ROOT
from mora_runtime import Client, RunDirectory, Session
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import Supervisor

from benchmarks.ipc.contestant import DEADLINE_S, Contestant, WrongAnswer
from benchmarks.ipc.lifetime import ONE_THREAD

AGENT = "echo"
SERVERS = ("echo.0", "echo.1")
ARENA_NBYTES = 2 << 30  # upper limit; a segment is made when its size is first sent


@dataclass
class OurServers:
    """Two servers and this process's connections to them."""

    supervisor: Supervisor
    servers: dict[str, RoleProcess]
    session: Session
    client: Client
    other: Client
    zmq_client: Client  # to the first server, without the doorbell

    def check_interrupt(self) -> None:
        """Raise after Ctrl-C, which the supervisor catches so that the servers end in order.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if self.supervisor.num_interrupts:
            raise KeyboardInterrupt


@contextlib.contextmanager
def our_servers(folder: Path) -> Iterator[OurServers]:
    """Start two echo servers below `folder`, connect, yield; then end them."""
    with RunDirectory.create(folder / "run", lock=True) as run, Supervisor(print) as supervisor:
        servers = {role: _start(role, run, supervisor) for role in SERVERS}
        if not supervisor.wait_ready(list(servers.values()), deadline_s=DEADLINE_S):
            raise KeyboardInterrupt
        with Session.open(run, "coordinator.0", arena_budget_nbytes=ARENA_NBYTES) as session:
            client, other = (session.connect(role, deadline_s=DEADLINE_S) for role in SERVERS)
            zmq_client = session.connect(SERVERS[0], deadline_s=DEADLINE_S, doorbell=False)
            yield OurServers(supervisor, servers, session, client, other, zmq_client)


def _start(role: str, run: RunDirectory, supervisor: Supervisor) -> RoleProcess:
    settings = {
        "role": role,
        "name": role.partition(".")[0],
        "run_dir": str(run.path),
        "environment": "control",
        "lock_hash": "0123456789abcdef",
        "agents": {AGENT: {"kind": AGENT}},
        "arena_budget_nbytes": ARENA_NBYTES,
    }
    path = run.role_folder(role) / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.ipc.echo_server", "--settings", str(path)]
    return supervisor.start(role, command, variables=ONE_THREAD, output=run.logs / f"{role}.out", folder=ROOT)


class Echo(Contestant):
    """One call that carries x there and y back."""

    def __init__(self, name: str, client: Client, method: str) -> None:
        self.name = name
        self._client = client
        self._method = method

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        reply = self._client.call(AGENT, self._method, {"x": x}, deadline_s=DEADLINE_S)
        value = reply.values["value"]
        y: torch.Tensor = value if isinstance(value, torch.Tensor) else value.tensor()
        return y

    def finish(self) -> None:
        self._client.flush()  # gives the slot of the last answer back to the server


class ResidentEcho(Echo):
    """The same, with x in a slot of this process from the beginning."""

    def __init__(self, client: Client, session: Session) -> None:
        super().__init__("resident", client, "add_one_in_slot")
        self._session = session

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        return self._session.empty(x.shape, x.dtype).copy_(x)


class EmptyCall(Contestant):
    """A call that carries no tensor."""

    name = "empty_call"

    def __init__(self, client: Client) -> None:
        self._client = client

    def echo(self, x: torch.Tensor) -> Any:
        return self._client.call(AGENT, "nothing", {}, deadline_s=DEADLINE_S).values["value"]

    def check(self, x: torch.Tensor, y: Any) -> None:
        if y is not None:
            raise WrongAnswer(f"{self.name}: expected None, got {y!r}")


def bulk_contestants(opened: OurServers) -> list[Contestant]:
    """The contestants for every size."""
    return [
        Echo("ours", opened.client, "add_one_in_slot"),
        ResidentEcho(opened.client, opened.session),
        Echo("fresh_output", opened.client, "add_one"),
    ]


def small_contestants(opened: OurServers) -> list[Contestant]:
    """The contestants for the smallest size only."""
    return [EmptyCall(opened.client), Echo("zmq_path", opened.zmq_client, "add_one")]
