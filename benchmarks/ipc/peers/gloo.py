"""torch.distributed's gloo: send and receive between two ranks, into warm tensors whose size both know in advance."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import EchoServer, die_with_parent

_CALLER, _SERVER = 0, 1


def join(rendezvous: str, rank: int) -> None:
    """Join both ranks through a file, over the loopback interface, regardless of what the host's name resolves to."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    method, timeout = f"file://{rendezvous}", timedelta(seconds=DEADLINE_S)
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=2, timeout=timeout)


class Gloo(Contestant):
    """The caller's side."""

    name = "gloo"
    note = "both ranks know the size before the timed echoes, so no header is sent"

    def __init__(self, folder: Path) -> None:
        self._rendezvous = f"{folder}/gloo.store"
        self._server = EchoServer(__name__, [self._rendezvous])

    def start(self) -> None:
        join(self._rendezvous, _CALLER)
        self._y = torch.empty(0)

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        self._y = torch.zeros_like(x)
        return x

    def expect(self, count: int) -> None:
        dist.send(torch.tensor([self._y.numel(), count]), _SERVER)

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        dist.send(x, _SERVER)
        dist.recv(self._y, _SERVER)
        return self._y

    def finish(self) -> None:
        self._y = torch.empty(0)

    def close(self) -> None:
        dist.send(torch.tensor([0, 0]), _SERVER)
        self._server.close()
        dist.destroy_process_group()


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [Gloo(folder)]


def serve(rendezvous: str) -> None:
    """Answer as many echoes as announced, until zero are announced."""
    join(rendezvous, _SERVER)
    announced = torch.zeros(2, dtype=torch.int64)
    x = y = torch.empty(0)
    while True:
        dist.recv(announced, _CALLER)
        numel, count = announced.tolist()
        if not count:
            break
        if x.numel() != numel:
            x, y = torch.zeros(numel), torch.zeros(numel)
        for _ in range(count):
            dist.recv(x, _CALLER)
            dist.send(torch.add(x, 1, out=y), _CALLER)
    dist.destroy_process_group()


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    serve(sys.argv[1])
