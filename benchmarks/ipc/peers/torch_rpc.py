"""torch.distributed.rpc (TensorPipe): a synchronous call of a function that returns x + 1."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch.distributed import rpc

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import EchoServer, die_with_parent

_CALLER, _SERVER = "caller", "server"


def join(rendezvous: str, name: str, rank: int) -> None:
    """Connect both processes through a file, over the loopback interface."""
    os.environ["TP_SOCKET_IFNAME"] = os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    options = rpc.TensorPipeRpcBackendOptions(init_method=f"file://{rendezvous}", rpc_timeout=DEADLINE_S)
    rpc.init_rpc(name, rank=rank, world_size=2, rpc_backend_options=options)


def add_one(x: torch.Tensor) -> torch.Tensor:
    """Runs in the server."""
    return x + 1


class TorchRpc(Contestant):
    """The caller's side."""

    name = "torch_rpc"

    def __init__(self, folder: Path) -> None:
        self._rendezvous = f"{folder}/torch_rpc.store"
        self._server = EchoServer(__name__, [self._rendezvous])

    def start(self) -> None:
        join(self._rendezvous, _CALLER, 0)

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = rpc.rpc_sync(_SERVER, add_one, args=(x,))
        return y

    def close(self) -> None:
        rpc.shutdown()
        self._server.close()


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [TorchRpc(folder)]


if __name__ == "__main__":
    die_with_parent()
    torch.set_num_threads(1)
    join(sys.argv[1], _SERVER, 1)
    rpc.shutdown()  # waits until the caller shuts down too
