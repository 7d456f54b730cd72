"""The thread that sends work to a server, with a server that answers at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mora_launch.serving.counters import Counters
from mora_launch.serving.server_worker import ServerWorker
from mora_launch.serving.work_queue import Work, WorkQueue
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

    def submit(self, agent: str, capability: str, arguments: dict[str, Any], *, deadline_s: float) -> Any:
        """One grey picture per prompt."""
        pictures = torch.full((len(arguments["prompts"]), 8, 8, 3), 7, dtype=torch.uint8)
        return SimpleNamespace(has_ended=True, result=lambda: SimpleNamespace(values={"outputs": pictures}))

    def ping(self, deadline_s: float) -> Any:
        """Do nothing."""
        vitals = dict.fromkeys(Pong._fields, 0)
        return SimpleNamespace(_asdict=lambda: vitals)

    def flush(self) -> None:
        """Do nothing, because nothing is held."""


def test_results_are_handed_over_before_the_worker_waits_for_more(tmp_path: Path) -> None:
    works = [Work("text_to_image", {"prompts": "a circle", "seeds": seed}, {}) for seed in range(6)]
    queue = WatchedQueue(works)
    with RunDirectory.create(tmp_path / "run") as directory:
        worker = ServerWorker(
            Role("image.0"),
            directory,
            queue,
            Counters(),
            allowed=["text_to_image"],
            modulation=None,
            arena_nbytes=1 << 20,
            deadline_s=5.0,
        )
        queue.worker = worker
        worker.capabilities = ("text_to_image",)
        worker._serve(PromptServer())  # type: ignore[arg-type]
    assert queue.owed_while_waiting == [[]]
    assert [int(work.future.result().max()) for work in works] == [7] * 6
