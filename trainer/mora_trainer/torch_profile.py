"""Torch's profiler around one step, in this rank and in the servers of its chain; used by `TrainingJob`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mora_runtime import Client
from mora_runtime.rpc.torch_trace import PROFILER, TorchTrace


class TorchProfile:
    """Profiles one step; starts before it and stops after it, so that neither is part of the measured step.

    Args:
        clients: by agent name; their servers are profiled too.
        step: the step to record; None records none.
    """

    def __init__(self, clients: Mapping[str, Client], step: int | None, *, deadline_s: float) -> None:
        self._clients = clients
        self._step = step
        self._deadline_s = deadline_s

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Record the block if `step` is the step to record."""
        if step != self._step:
            yield
            return
        mine = TorchTrace()
        self._ask("begin")
        mine.begin()
        yield
        mine.end()
        self._ask("end")

    def _ask(self, method: str) -> None:
        pending = [
            client.submit(PROFILER, method, {}, deadline_s=self._deadline_s) for client in self._clients.values()
        ]
        for call in pending:
            call.result()
