"""A trainer of the two stages for `measurement`, and the process that runs it.

`python -m benchmarks.mlp.trainer FOLDER RESULTS_FD NAME` runs a trainer of `trainers`; see `turn_process`. Commands
are `{"do": "begin", "width": w}`, `{"do": "steps", "count": n}` and `{"do": "weights", "path": p}`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.ipc.lifetime import die_with_parent
from benchmarks.mlp.trainers import path_of


class Trainer(ABC):
    """One way to train both stages jointly."""

    def start(self, folder: Path) -> None:  # noqa: B027 - one process has nothing to start
        """Bring everything up."""

    @abstractmethod
    def begin(self, width: int) -> None:
        """Make fresh stages, optimizers and data of this width."""

    @abstractmethod
    def step(self) -> None:
        """Forward, backward and the step of both optimizers; complete when it returns, or at the next `settle`."""

    def settle(self) -> None:  # noqa: B027 - most have nothing pending between steps
        """Wait for what is still pending from earlier steps."""

    @abstractmethod
    def weights(self) -> dict[str, torch.Tensor]:
        """As `stages.named_weights`."""

    def close(self) -> None:  # noqa: B027
        """End everything that `start` started."""


def steps(trainer: Trainer, count: int) -> float:
    """Milliseconds per step, over `count` steps."""
    started_s = time.perf_counter()
    for _ in range(count):
        trainer.step()
    trainer.settle()
    return (time.perf_counter() - started_s) * 1e3 / count


def _answer(trainer: Trainer, command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "begin":
        trainer.begin(command["width"])
        return {}
    if command["do"] == "steps":
        return {"step_ms": steps(trainer, command["count"])}
    save_file({name: value.contiguous() for name, value in trainer.weights().items()}, command["path"])
    return {}


def main() -> None:
    """Serve turns until stdin ends."""
    die_with_parent()
    folder, results, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    trainer: Trainer = importlib.import_module(path_of(name)).trainer(name)
    trainer.start(folder)
    os.write(results, b'{"ready": true}\n')
    for line in sys.stdin:
        try:
            answer = _answer(trainer, json.loads(line))
        except Exception as error:
            # the boundary of the process: any error of a library ends this contestant, not the benchmark
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(results, json.dumps(answer).encode() + b"\n")
    trainer.close()
    os.write(results, b'{"closed": true}\n')


if __name__ == "__main__":
    main()
