"""torch.distributed.rpc, its autograd and optimizer: the first stage here, the second in another process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed import autograd, rpc
from torch.distributed.optim import DistributedOptimizer

from benchmarks.ipc.contestant import DEADLINE_S
from benchmarks.ipc.lifetime import EchoServer, die_with_parent, say_ready
from benchmarks.mlp import stages
from benchmarks.mlp.trainer import Trainer

_CALLER, _SERVER = "first", "second"


def _join(rendezvous: str, name: str, rank: int) -> None:
    os.environ["TP_SOCKET_IFNAME"] = os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    options = rpc.TensorPipeRpcBackendOptions(init_method=f"file://{rendezvous}", rpc_timeout=DEADLINE_S)
    rpc.init_rpc(name, rank=rank, world_size=2, rpc_backend_options=options)


class _Second:
    """The stage in the other process."""

    def __init__(self, width: int) -> None:
        self._stage = stages.second_stage(width)
        _, self._target = stages.batch(width)

    def loss(self, hidden: torch.Tensor) -> torch.Tensor:
        return stages.loss_of(self._stage(hidden), self._target)

    def parameters(self) -> list[Any]:
        return [rpc.RRef(parameter) for parameter in self._stage.parameters()]

    def weights(self) -> dict[str, torch.Tensor]:
        return self._stage.state_dict()


class DistAutograd(Trainer):
    """The caller's side."""

    def start(self, folder: Path) -> None:
        rendezvous = f"{folder}/mlp.store"
        self._server = EchoServer(__name__, [rendezvous])
        _join(rendezvous, _CALLER, 0)

    def begin(self, width: int) -> None:
        self._first = stages.first_stage(width)
        self._x, _ = stages.batch(width)
        self._second = rpc.remote(_SERVER, _Second, args=(width,))
        parameters = [rpc.RRef(parameter) for parameter in self._first.parameters()]
        parameters += self._second.rpc_sync(timeout=DEADLINE_S).parameters()
        self._optimizer = DistributedOptimizer(torch.optim.SGD, parameters, lr=stages.LEARNING_RATE)

    def step(self) -> None:
        with autograd.context() as context:
            loss = self._second.rpc_sync(timeout=DEADLINE_S).loss(self._first(self._x))
            autograd.backward(context, [loss])
            self._optimizer.step(context)

    def weights(self) -> dict[str, torch.Tensor]:
        there = self._second.rpc_sync(timeout=DEADLINE_S).weights()
        first = {f"first.{name}": value for name, value in self._first.state_dict().items()}
        return first | {f"second.{name}": value for name, value in there.items()}

    def close(self) -> None:
        del self._second, self._optimizer
        rpc.shutdown()
        self._server.close()


def trainer(name: str) -> Trainer:
    """For `benchmarks.mlp.trainer`."""
    return DistAutograd()


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    say_ready()
    _join(sys.argv[1], _SERVER, 1)
    rpc.shutdown()  # waits until the caller shuts down too
