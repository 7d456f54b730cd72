"""Two torch.multiprocessing queues, as a data loader's workers use them: tensors move through shared memory.

`put` would move a tensor in ordinary memory into shared memory permanently. So each message is written into a new
shared tensor, as torch's own data loader does; fewer copies are not possible here.
"""

from __future__ import annotations

import queue as standard_queue
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import die_with_parent


def new_shared(like: torch.Tensor) -> torch.Tensor:
    """An uninitialised tensor like x in new shared memory."""
    storage = torch.UntypedStorage._new_shared(like.nbytes)
    return torch.empty(0, dtype=like.dtype).set_(storage).view(like.shape)


class TorchQueue(Contestant):
    """The caller's side."""

    name = "torch_queue"

    def start(self) -> None:
        context = mp.get_context("spawn")
        self._requests: Any = context.Queue()
        self._answers: Any = context.Queue()
        self._server = context.Process(target=serve, args=(self._requests, self._answers), daemon=True)
        self._server.start()
        self._take()  # the server's first message says that it is ready

    def _take(self) -> Any:
        try:
            return self._answers.get(timeout=DEADLINE_S)
        except standard_queue.Empty:
            raise TimeoutError(f"{self.name}: no answer within {DEADLINE_S:.0f} s") from None

    def echo(self, x: torch.Tensor) -> Any:
        self._requests.put(new_shared(x).copy_(x))
        return self._take()

    def close(self) -> None:
        self._requests.put(None)
        self._server.join(10)
        if self._server.is_alive():
            self._server.kill()
            self._server.join(10)


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [TorchQueue()]


def serve(requests: Any, answers: Any) -> None:
    """Body of the server process: answer until None comes."""
    die_with_parent()
    torch.set_num_threads(1)
    answers.put(None)
    while (x := requests.get()) is not None:
        answers.put(torch.add(x, 1, out=new_shared(x)))
