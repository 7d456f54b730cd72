"""Both stages in one process with one thread on one core: the reference for all others."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from benchmarks.mlp import stages
from benchmarks.mlp.trainer import Trainer


class OneProcess(Trainer):
    """The plain program."""

    def start(self, folder: Path) -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    def begin(self, width: int) -> None:
        self._first, self._second = stages.first_stage(width), stages.second_stage(width)
        self._optimizers = [stages.optimizer_of(stage) for stage in (self._first, self._second)]
        self._x, self._target = stages.batch(width)

    def step(self) -> None:
        loss = stages.loss_of(self._second(self._first(self._x)), self._target)
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def weights(self) -> dict[str, torch.Tensor]:
        return stages.named_weights(self._first, self._second)


def trainer(name: str) -> Trainer:
    """For `benchmarks.mlp.trainer`."""
    return OneProcess()
