"""Mora's way to train the two stages: a server for each, driven from this process through the public API."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from mora_launch.child import Child
from mora_launch.environments import ROOT
from mora_launch.servers import child_variables
from mora_launch.supervisor import Supervisor
from mora_runtime import Client, Node, PendingReply, RunDirectory

from benchmarks.ipc.contestant import DEADLINE_S
from benchmarks.mlp import stages
from benchmarks.mlp.stage_server import AGENT
from benchmarks.mlp.trainer import Trainer

STAGES = ("first", "second")
_ARENA_NBYTES = 256 << 20


class Ours(Trainer):
    """Both servers run the calls they are sent in order, so a step waits only where one needs the other's tensor.

    Args:
        fused: loss and backward of the second stage in one message.
        inputs_first: of that backward, so that the first stage goes back while the second still computes.
    """

    def __init__(self, clients: dict[str, Client], node: Node, *, fused: bool, inputs_first: bool) -> None:
        self._first, self._second = (clients[name] for name in STAGES)
        self._node = node
        self._fused = fused
        self._inputs_first = inputs_first
        self._under_way: list[PendingReply] = []
        self._scale = torch.ones(())

    def begin(self, width: int) -> None:
        self.settle()
        for client in (self._first, self._second):
            client.call(AGENT, "begin", {"width": width}, deadline_s=DEADLINE_S)
        self._x, self._target = (self._node.empty(t.shape).copy_(t) for t in stages.batch(width))

    def step(self) -> None:
        forward = self._first.call(AGENT, "forward", {"x": self._x}, grad=(), deadline_s=DEADLINE_S)
        assert forward.ticket is not None
        gradient = self._loss(forward.values["hidden"])
        behind = self._under_way
        self._under_way = [
            self._first.submit_backward(forward.ticket, {"hidden": gradient}, deadline_s=DEADLINE_S),
            *(client.submit(AGENT, "step", {}, deadline_s=DEADLINE_S) for client in (self._first, self._second)),
        ]
        for pending in behind:
            pending.result()  # of the step before, so that no failure goes unseen and no more than one is under way

    def _loss(self, hidden: object) -> object:
        arguments = {"hidden": hidden, "target": self._target}
        if self._fused:
            grads = {"loss": self._scale}
            return (
                self._second.submit(
                    AGENT, "loss", arguments, grad=("hidden",), output_grads=grads,
                    inputs_first=self._inputs_first, deadline_s=DEADLINE_S,
                ).result().gradients["hidden"]
            )  # fmt: skip
        reply = self._second.call(AGENT, "loss", arguments, grad=("hidden",), deadline_s=DEADLINE_S)
        assert reply.ticket is not None
        return self._second.backward(reply.ticket, deadline_s=DEADLINE_S)["hidden"]

    def settle(self) -> None:
        for pending in self._under_way:
            pending.result()
        self._under_way = []

    def weights(self) -> dict[str, torch.Tensor]:
        found = {}
        for name, client in zip(STAGES, (self._first, self._second), strict=True):
            values = client.call(AGENT, "weights", {}, deadline_s=DEADLINE_S).values
            found |= {f"{name}.{key.replace('_', '.')}": value.tensor().clone() for key, value in values.items()}
        return found


@contextlib.contextmanager
def our_trainers(folder: Path) -> Iterator[dict[str, Ours]]:
    """Start both servers, each on a core of its own where there are two, and connect; end them afterwards."""
    with RunDirectory.create(folder / "run", lock=True) as run, Supervisor(print) as supervisor:
        cores = sorted(os.sched_getaffinity(0))
        servers = [_start(name, cores[i % len(cores)], run, supervisor) for i, name in enumerate(STAGES)]
        if not supervisor.wait_ready(servers, deadline_s=DEADLINE_S):
            raise KeyboardInterrupt
        with Node.open(run, "coordinator.0", arena_budget_nbytes=_ARENA_NBYTES) as node:
            clients = {name: node.connect(f"{name}.0", deadline_s=DEADLINE_S) for name in STAGES}
            yield {
                "ours": Ours(clients, node, fused=False, inputs_first=False),
                "ours_fused": Ours(clients, node, fused=True, inputs_first=False),
                "ours_inputs_first": Ours(clients, node, fused=True, inputs_first=True),
            }


def _start(name: str, core: int, run: RunDirectory, supervisor: Supervisor) -> Child:
    role = f"{name}.0"
    settings = {
        "role": role,
        "name": name,
        "run_dir": str(run.path),
        "cpu_affinity": [core],
        "environment": "control",
        "lock_hash": "0123456789abcdef",
        "agents": {AGENT: {"kind": AGENT}},
        "arena_budget_nbytes": _ARENA_NBYTES,
    }
    path = run.role_folder(role) / "settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.mlp.stage_server", "--settings", str(path)]
    return supervisor.start(
        role, command, variables=child_variables(1, "cpu"), output=run.logs / f"{role}.out", folder=ROOT
    )
