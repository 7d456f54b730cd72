"""The thread that sends work to a server, with a server that answers at once."""

from __future__ import annotations

import time
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
from mora_runtime.errors import AgentFailed, DeadlineExceeded, ProtocolError
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


class OddServer(PromptServer):
    """Answers each call with the next of these values, then with pictures."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def submit(self, agent: str, capability: str, arguments: dict[str, Any], *, parts: bool, deadline_s: float) -> Any:
        """The next answer."""
        if not self.values:
            return super().submit(agent, capability, arguments, parts=parts, deadline_s=deadline_s)
        value = self.values.pop(0)
        return SimpleNamespace(has_ended=True, result=lambda: SimpleNamespace(values={"outputs": value}))


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "got NoneType"),
        ("x", "got str"),
        (torch.zeros((), dtype=torch.uint8), r"uint8 \(\)"),
        (torch.zeros(2, dtype=torch.uint8), r"expected `outputs`, uint8 \(B, H, W, 3\), got torch.uint8 \(2,\)"),
        (torch.zeros((2, 8, 8, 1), dtype=torch.uint8), r"\(2, 8, 8, 1\)"),
        (torch.zeros((2, 0, 8, 3), dtype=torch.uint8), r"\(2, 0, 8, 3\)"),
        (torch.zeros((2, 8, 8, 3)), "got torch.float32"),
        (torch.zeros((3, 8, 8, 3), dtype=torch.uint8), "expected 2 samples, one for each prompt, got 3"),
        (torch.zeros((1, 8, 8, 3), dtype=torch.uint8), "got 1"),
    ],
)
def test_an_answer_that_is_no_picture_for_each_prompt_fails_its_requests_alone(
    tmp_path: Path, value: Any, told: str, is_held: bool
) -> None:
    bad = [Work("text_to_image", {"prompts": "a circle", "seeds": n}, {}, is_held=is_held) for n in range(2)]
    good = [Work("text_to_image", {"prompts": "a circle", "seeds": 2}, {"height": 8})]
    serve(WatchedQueue([*bad, *good]), OddServer(value), tmp_path)
    for work in bad:
        with pytest.raises(AgentFailed, match=told) as failed:
            work.future.result(0)
        assert str(failed.value).startswith("image.text_to_image: expected ")
    assert int(good[0].future.result(0).max()) == 7


class Sessions:
    """A session whose connections are these clients, one after the other."""

    def __init__(self, *clients: Any) -> None:
        self.clients = list(clients)

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self, role: Role, *, deadline_s: float) -> Any:
        """The next client."""
        return self.clients.pop(0)


class Connected(PromptServer):
    """A client of a server with one agent.

    Args:
        fault: raised at the first ping.
    """

    def __init__(self, fault: Exception | None) -> None:
        self.fault = fault
        self.is_closed = False
        self.welcome = SimpleNamespace(agents={"image": ["describe", "text_to_image"]})

    def call(self, agent: str, method: str, arguments: dict[str, Any], *, deadline_s: float) -> Any:
        """The description."""
        return SimpleNamespace(values={"height": 8})

    def ping(self, deadline_s: float) -> Any:
        """Fail, or show that the server lives."""
        if self.fault is not None:
            raise self.fault
        return super().ping(deadline_s)

    def close(self) -> None:
        """Record it."""
        self.is_closed = True


@pytest.mark.parametrize("fault", [ProtocolError("an invalid message"), ValueError("a fault of the worker")])
def test_a_worker_that_fails_connects_to_its_server_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    first, second = Connected(fault), Connected(None)
    monkeypatch.setattr("mora_runtime.Session.open", lambda *_, **__: Sessions(first, second))
    queue = WorkQueue({"text_to_image": 4})
    with RunDirectory.create(tmp_path / "run") as directory:
        worker = ServerWorker(
            Role("image.0"), directory, queue, Counters(), allowed=["text_to_image"],
            adapters=ServerAdapters("image", AdapterCatalog(), None), arena_nbytes=1 << 20, deadline_s=5.0,
        )  # fmt: skip
        worker.start()
        worker.server_is_ready(1)
        deadline = time.monotonic() + 30
        while not first.is_closed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        work = Work("text_to_image", {"prompts": "a circle", "seeds": 1}, {})
        queue.put(work)
        assert int(work.future.result(30).max()) == 7
        worker.end()
        worker.join(30)
    assert not worker.is_alive()
    assert second.is_closed
