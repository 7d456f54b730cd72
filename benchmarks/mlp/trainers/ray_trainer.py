"""Ray: an actor for each stage; hidden values and gradients pass through the object store."""

from __future__ import annotations

import os
from pathlib import Path

import ray
import torch

from benchmarks.ipc.contestant import DEADLINE_S
from benchmarks.ipc.peers.ray_cluster import open_cluster
from benchmarks.mlp import stages
from benchmarks.mlp.trainer import Trainer


@ray.remote(num_cpus=0)
class _Stage:
    """One stage, its optimizer, and the graph between forward and backward."""

    def __init__(self, *, is_first: bool, width: int) -> None:
        torch.set_num_threads(1)
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[0] if is_first else cores[-1]})
        self._stage = stages.first_stage(width) if is_first else stages.second_stage(width)
        self._optimizer = stages.optimizer_of(self._stage)
        self._x, self._target = stages.batch(width)

    def forward(self) -> torch.Tensor:
        self._hidden = self._stage(self._x)
        return self._hidden.detach()

    def backward_of_loss(self, hidden: torch.Tensor) -> torch.Tensor:
        leaf = hidden.clone().requires_grad_(True)  # tensors from the object store are read-only
        stages.loss_of(self._stage(leaf), self._target).backward()
        self._step()
        assert leaf.grad is not None
        return leaf.grad

    def backward(self, gradient: torch.Tensor) -> None:
        self._hidden.backward(gradient)
        self._step()

    def _step(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad()

    def weights(self) -> dict[str, torch.Tensor]:
        return self._stage.state_dict()


class RayActors(Trainer):
    """The driver's side."""

    def start(self, folder: Path) -> None:
        self._folder = open_cluster()

    def begin(self, width: int) -> None:
        self._first, self._second = (_Stage.remote(is_first=first, width=width) for first in (True, False))  # type: ignore[attr-defined]

    def step(self) -> None:
        gradient = self._second.backward_of_loss.remote(self._first.forward.remote())
        ray.get(self._first.backward.remote(gradient), timeout=DEADLINE_S)

    def weights(self) -> dict[str, torch.Tensor]:
        found = {}
        for name, actor in (("first", self._first), ("second", self._second)):
            weights = ray.get(actor.weights.remote(), timeout=DEADLINE_S)
            found |= {f"{name}.{key}": value.clone() for key, value in weights.items()}
        return found

    def close(self) -> None:
        ray.shutdown()
        self._folder.cleanup()


def trainer(name: str) -> Trainer:
    """For `benchmarks.mlp.trainer`."""
    return RayActors()
