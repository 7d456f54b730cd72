"""The thread that sends work to a server, with a server that answers at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mora_launch.checkpoints.adapter_catalog import AdapterCatalog
from mora_launch.serving.counters import Counters
from mora_launch.serving.feeding.server_adapters import ServerAdapters
from mora_launch.serving.feeding.server_worker import ServerWorker
from mora_launch.serving.work_queue import Work, WorkQueue
from mora_runtime.errors import DeadlineExceeded
from mora_runtime.process.role import Role
from mora_runtime.process.run_directory import RunDirectory
from mora_runtime.wire.messages import Pong


class WatchedQueue(WorkQueue):
    """Ends the worker at its first wait for more work, and records the unanswered work at that time."""

    def __init__(self, works: list[Work]) -> None:
        super().__init__({"text_to_image": 4})
        self.worker: ServerWorker | None = None
        self.owed_while_waiting: list[list[Work]] = []
        self._works = works
        for work in works:
            self.put(work)

    def take(self, capabilities: Any, *, timeout_s: float, only_full: bool = False) -> list[Work]:
        """Like the real method, but it never waits."""
        if timeout_s > 0 and not len(self):
            self.owed_while_waiting.append([work for work in self._works if not work.future.done()])
            assert self.worker is not None
            self.worker.end()
        return super().take(capabilities, timeout_s=0.0, only_full=only_full)


class PromptServer:
    """A client with an immediate answer."""

    def submit(self, agent: str, capability: str, arguments: dict[str, Any], *, parts: bool, deadline_s: float) -> Any:
        """One grey picture per prompt."""
        pictures = torch.full((len(arguments["prompts"]), 8, 8, 3), 7, dtype=torch.uint8)
        return SimpleNamespace(has_ended=True, result=lambda: SimpleNamespace(values={"outputs": pictures}))

    def ping(self, deadline_s: float) -> Any:
        """Do nothing."""
        vitals = dict.fromkeys(Pong._fields, 0)
        return SimpleNamespace(_asdict=lambda: vitals)

    def flush(self) -> None:
        """Do nothing, because nothing is held."""


def serve(queue: WatchedQueue, server: PromptServer, folder: Path) -> None:
    """Feed the server until the worker would wait for more work."""
    with RunDirectory.create(folder / "run") as directory:
        worker = ServerWorker(
            Role("image.0"), directory, queue, Counters(), allowed=["text_to_image"],
            adapters=ServerAdapters("image", AdapterCatalog(), None),
            arena_nbytes=1 << 20, deadline_s=5.0,
        )  # fmt: skip
        queue.worker = worker
        worker.capabilities = ("text_to_image",)
        worker._serve(server)  # type: ignore[arg-type]


def test_results_are_handed_over_before_the_worker_waits_for_more(tmp_path: Path) -> None:
    works = [Work("text_to_image", {"prompts": "a circle", "seeds": seed}, {}) for seed in range(6)]
    queue = WatchedQueue(works)
    serve(queue, PromptServer(), tmp_path)
    assert queue.owed_while_waiting == [[]]
    assert [int(work.future.result().max()) for work in works] == [7] * 6


class LateServer(PromptServer):
    """A server that gives no answer in time."""

    def __init__(self) -> None:
        self.cancelled: list[Any] = []

    def submit(self, agent: str, capability: str, arguments: dict[str, Any], *, parts: bool, deadline_s: float) -> Any:
        """A call whose deadline has passed."""

        def result() -> Any:
            raise DeadlineExceeded("image.0 gave no answer")

        return SimpleNamespace(has_ended=True, result=result)

    def cancel(self, pending: Any, deadline_s: float, *, sample: int | None = None) -> None:
        """Record the cancelled call."""
        self.cancelled.append((pending, sample))


def test_a_call_without_an_answer_in_time_is_cancelled_as_a_whole(tmp_path: Path) -> None:
    works = [Work("text_to_image", {"prompts": "a circle", "seeds": seed}, {}) for seed in range(3)]
    server = LateServer()
    serve(WatchedQueue(works), server, tmp_path)
    assert [sample for _, sample in server.cancelled] == [None]
    for work in works:
        with pytest.raises(DeadlineExceeded):
            work.future.result(0)
