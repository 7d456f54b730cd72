"""A plain torchrun script in which one module of the model lives in another Python environment.

    torchrun --standalone --nproc-per-node 2 examples/torchrun_remote_module.py OTHER_PYTHON

Every rank starts its own server. DistributedDataParallel averages the gradients of the local layer as always; the loss
goes through the frozen module in the other environment and back. OTHER_PYTHON needs `pip install ./runtime`.
"""

import os
import sys

import torch
import torch.distributed as dist
from mora_runtime import host, spawn


def judge() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).requires_grad_(False)


def train(module: torch.nn.Module, other: torch.nn.Module, data: torch.Tensor) -> list[torch.Tensor]:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(4):
        optimizer.zero_grad()
        other(module(data + step)).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in module.parameters()]


def local_layer() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 8)


def main(python: str) -> None:
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    data = torch.randn(4 * size, 4, generator=torch.Generator().manual_seed(2))
    with spawn(python, __file__, variables={"HOSTED": "1"}) as peer:
        ddp = torch.nn.parallel.DistributedDataParallel(local_layer())
        trained = train(ddp, peer.module("judge"), data[4 * rank : 4 * rank + 4])
    expected = train(local_layer(), judge(), data)  # one process, the whole batch
    worst = max(float((a - b).abs().max()) for a, b in zip(trained, expected, strict=True))
    if rank == 0:
        print(f"{size} ranks against one process: largest difference of a weight {worst:.1e}")
    dist.destroy_process_group()


if __name__ == "__main__":
    if os.environ.get("HOSTED"):
        host(judge=judge())
    main(sys.argv[1] if len(sys.argv) > 1 else sys.executable)  # by default, another process of the same environment
