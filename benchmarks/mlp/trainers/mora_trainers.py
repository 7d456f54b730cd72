"""Mora's ways to train the two stages, through the public API.

The second stage is in a server. The first is here, as with `dist_autograd`, or in a server too, as in `mora train`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mora_launch.environments.venvs import ROOT
from mora_launch.jobs.servers import child_variables
from mora_runtime import PendingReply, RunDirectory, Session, TensorRef
from mora_runtime.process.role_process import RoleProcess
from mora_runtime.process.supervisor import Supervisor

from benchmarks.ipc.contestant import DEADLINE_S
from benchmarks.mlp import stages
from benchmarks.mlp.stage_server import AGENT
from benchmarks.mlp.trainer import Trainer

FIRST, SECOND = "first.0", "second.0"
_ARENA_NBYTES = 256 << 20
_SPIN_NS = 5_000_000  # each process has its own core, so spinning costs no other process


class MoraTrainer(Trainer):
    """The common part of both trainers: servers, and the second stage.

    Args:
        fused: loss and backward of the second stage in one message.
        inputs_first: input gradients first, so that the first stage runs its backward while the second still computes.
    """

    roles: Sequence[str]  # of the servers
    is_on_own_core: bool  # true if this process has its own core

    def __init__(self, *, fused: bool, inputs_first: bool = False) -> None:
        self._fused = fused
        self._inputs_first = inputs_first
        self._under_way: list[PendingReply] = []
        self._scale = torch.ones(())

    def start(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        cores = sorted(os.sched_getaffinity(0))
        run = self._stack.enter_context(RunDirectory.create(folder / f"run-{os.getpid()}", lock=True))
        supervisor = self._stack.enter_context(Supervisor(print))
        has_cores = len(cores) > 1 and self.is_on_own_core
        servers = [
            self._start_server(role, cores[(i + self.is_on_own_core) % len(cores)], run, supervisor, has_cores)
            for i, role in enumerate(self.roles)
        ]
        if not supervisor.wait_ready(servers, deadline_s=DEADLINE_S):
            raise KeyboardInterrupt
        if self.is_on_own_core:
            os.sched_setaffinity(0, cores[:1])
        spin_ns = _SPIN_NS if has_cores else None
        session = Session.open(run, "coordinator.0", arena_budget_nbytes=_ARENA_NBYTES, spin_ns=spin_ns)
        self._session = self._stack.enter_context(session)
        self.clients = {role: self._session.connect(role, deadline_s=DEADLINE_S) for role in self.roles}

    def _start_server(
        self, role: str, core: int, run: RunDirectory, supervisor: Supervisor, has_cores: bool
    ) -> RoleProcess:
        settings: dict[str, Any] = {
            "role": role,
            "name": role.partition(".")[0],
            "run_dir": str(run.path),
            "cpu_affinity": [core],
            "environment": "control",
            "lock_hash": "0123456789abcdef",
            "agents": {AGENT: {"kind": AGENT}},
            "arena_budget_nbytes": _ARENA_NBYTES,
            "spin_ns": _SPIN_NS if has_cores else None,
        }
        path = run.role_folder(role) / "settings.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.mlp.stage_server", "--settings", str(path)]
        output = run.logs / f"{role}.out"
        return supervisor.start(role, command, variables=child_variables(1, "cpu"), output=output, folder=ROOT)

    def begin(self, width: int) -> None:
        self.settle()
        for client in self.clients.values():
            client.call(AGENT, "begin", {"width": width}, deadline_s=DEADLINE_S)
        self.x, self._target = (self._session.empty(t.shape).copy_(t) for t in stages.batch(width))

    def step(self) -> None:
        behind = self._under_way
        self._under_way = self.submit_step()
        for pending in behind:
            pending.result()  # of the previous step, so that every failure is seen and at most one step is pending

    @abstractmethod
    def submit_step(self) -> list[PendingReply]:
        """Forward, backward and optimizers; returns replies that are still pending."""

    def gradient_of_hidden(self, hidden: torch.Tensor | TensorRef) -> TensorRef:
        """Loss and backward of the second stage."""
        client, arguments = self.clients[SECOND], {"hidden": hidden, "target": self._target}
        if self._fused:
            pending = client.submit(
                AGENT,
                "loss",
                arguments,
                grad=("hidden",),
                output_grads={"loss": self._scale},
                inputs_first=self._inputs_first,
                deadline_s=DEADLINE_S,
            )
            return pending.result().gradients["hidden"]
        reply = client.call(AGENT, "loss", arguments, grad=("hidden",), deadline_s=DEADLINE_S)
        assert reply.ticket is not None
        return client.backward(reply.ticket, deadline_s=DEADLINE_S)["hidden"]

    def submit(self, role: str, method: str) -> PendingReply:
        """Submit a call without arguments."""
        return self.clients[role].submit(AGENT, method, {}, deadline_s=DEADLINE_S)

    def settle(self) -> None:
        for pending in self._under_way:
            pending.result()
        self._under_way = []

    def server_weights(self, role: str) -> dict[str, torch.Tensor]:
        """Weights of the server's stage."""
        values = self.clients[role].call(AGENT, "weights", {}, deadline_s=DEADLINE_S).values
        name = role.partition(".")[0]
        return {f"{name}.{key.replace('_', '.')}": value.tensor().clone() for key, value in values.items()}

    def close(self) -> None:
        self.settle()
        self._stack.close()


class OneServer(MoraTrainer):
    """The first stage in this process."""

    roles = (SECOND,)
    is_on_own_core = True

    def begin(self, width: int) -> None:
        super().begin(width)
        self._first = stages.first_stage(width)
        self._optimizer = stages.optimizer_of(self._first)

    def submit_step(self) -> list[PendingReply]:
        hidden = self._first(self.x)
        gradient = self.gradient_of_hidden(hidden.detach())
        stepping = self.submit(SECOND, "step")  # runs during the backward of the first stage
        hidden.backward(gradient.tensor())
        self._optimizer.step()
        self._optimizer.zero_grad()
        return [stepping]

    def weights(self) -> dict[str, torch.Tensor]:
        here = {f"first.{name}": value for name, value in self._first.state_dict().items()}
        return here | self.server_weights(SECOND)


class TwoServers(MoraTrainer):
    """Both stages in servers, which run their calls in order, so this process waits only for tensors."""

    roles = (FIRST, SECOND)
    is_on_own_core = False

    def submit_step(self) -> list[PendingReply]:
        client = self.clients[FIRST]
        forward = client.call(AGENT, "forward", {"x": self.x}, grad=(), deadline_s=DEADLINE_S)
        assert forward.ticket is not None
        gradient = self.gradient_of_hidden(forward.values["hidden"])
        backward = client.submit_backward(forward.ticket, {"hidden": gradient}, deadline_s=DEADLINE_S)
        return [backward, self.submit(FIRST, "step"), self.submit(SECOND, "step")]

    def weights(self) -> dict[str, torch.Tensor]:
        return self.server_weights(FIRST) | self.server_weights(SECOND)


def trainer(name: str) -> Trainer:
    """For `benchmarks.mlp.trainer`."""
    if name == "ours_two_servers":
        return TwoServers(fused=True)
    return OneServer(fused=name != "ours", inputs_first=name == "ours_inputs_first")
