"""On a GPU the times of a call are those of its work there. A fake stream and fake events replace the GPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mora_runtime import Agent, remote
from mora_runtime.autograd.graph_table import GraphTable
from mora_runtime.rpc import execution
from mora_runtime.rpc.activity import Activity
from mora_runtime.rpc.device_time import DeviceTime
from mora_runtime.rpc.execution import Caller, Executor
from mora_runtime.rpc.server_device import ServerDevice
from mora_runtime.trace import tracing
from mora_runtime.wire.codec import decode
from mora_runtime.wire.messages import Backward, Call, Result


class Stream:
    """Work that a GPU was given. It is done only when something waits for it."""

    def __init__(self) -> None:
        self.queued_ms = 0.0
        self.done_ms = 0.0
        self.log: list[str] = []

    def queue(self, work_ms: float) -> None:
        self.queued_ms += work_ms

    def wait(self, until_ms: float, why: str) -> None:
        self.done_ms = max(self.done_ms, until_ms)
        self.log.append(why)


class FakeEvent:
    stream: Stream

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing
        self._at_ms: float | None = None

    def record(self) -> None:
        self._at_ms = self.stream.queued_ms

    def synchronize(self) -> None:
        assert self._at_ms is not None
        self.stream.wait(self._at_ms, "event")

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self._at_ms is not None
        assert end._at_ms is not None
        assert end._at_ms <= self.stream.done_ms, "an event is read only when the GPU has passed it"
        return end._at_ms - self._at_ms


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    stream = Stream()
    monkeypatch.setattr(FakeEvent, "stream", stream, raising=False)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    return stream


class Model(Agent):
    """Queues work of known lengths on the stream; its tensors are on the CPU."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._weight = torch.nn.Parameter(torch.ones(3))

    @remote
    def work(self) -> int:
        """Queue 250 ms."""
        self._stream.queue(250.0)
        return 1

    @remote
    def fail(self) -> int:
        """Queue work and raise."""
        self._stream.queue(1.0)
        raise ValueError("a fault of the agent")

    @remote(differentiable=True)
    def forward(self) -> dict[str, Any]:
        """A forward of 40 ms, whose backward takes 90 ms."""
        self._stream.queue(40.0)
        weight = self._weight * 1.0
        weight.register_hook(lambda gradient: self._stream.queue(90.0))
        return {"loss": weight.sum()}


@pytest.fixture
def run(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Callable[[Call | Backward], Result]:
    def to_wire(store: object, caller: object, values: dict[str, Any], *, onward: object) -> dict[str, Any]:
        stream.wait(stream.queued_ms, "copy")  # a copy to host memory waits for the work before it
        return {}

    monkeypatch.setattr(execution, "to_wire", to_wire)
    monkeypatch.setattr(execution, "from_wire", lambda store, caller, values: {})
    device = ServerDevice(torch.device("cuda:0"), ends_when_out_of_memory=False)
    store = SimpleNamespace(collect=lambda: None)
    executor = Executor(
        store, {"model": Model(stream)}, device, GraphTable(), Activity(), recompute=False  # type: ignore[arg-type]
    )  # fmt: skip
    caller = Caller("client", b"client")

    def run(message: Call | Backward) -> Result:
        answer = decode(executor.run(caller, message))
        assert isinstance(answer, Result)
        return answer

    return run


def call(method: str, *, grad: list[str] | None = None, output_grads: dict[str, Any] | None = None) -> Call:
    return Call(1, "model", method, {}, grad, output_grads, False, [])


def test_the_time_of_a_call_is_that_of_its_work_and_is_read_after_the_copy(
    run: Callable[[Call | Backward], Result], stream: Stream
) -> None:
    stream.queue(1000.0)  # of an earlier call, which is not part of this one
    assert run(call("work")).forward_ns == 250_000_000
    assert stream.log == ["copy", "event"]


def test_forward_and_backward_in_one_call_are_told_apart(run: Callable[[Call | Backward], Result]) -> None:
    answer = run(call("forward", grad=[], output_grads={}))
    assert (answer.forward_ns, answer.backward_ns) == (40_000_000, 90_000_000)


def test_a_backward_of_its_own_has_only_its_own_time(run: Callable[[Call | Backward], Result]) -> None:
    ticket = run(call("forward", grad=[])).ticket
    assert ticket is not None
    answer = run(Backward(2, ticket, {}, False, []))
    assert (answer.forward_ns, answer.backward_ns) == (0, 90_000_000)


def test_on_the_cpu_the_time_is_the_elapsed_one_and_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_event(**_: object) -> None:
        raise AssertionError("there is no GPU to record an event on")

    monkeypatch.setattr(torch.cuda, "Event", no_event)
    clock = iter([1_000, 1_700])
    monkeypatch.setattr("mora_runtime.rpc.device_time.time.monotonic_ns", lambda: next(clock))
    with DeviceTime(torch.device("cpu")) as taken:
        pass
    assert taken.ns() == 700


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "trace.jsonl"
    tracing.start(path, "model.0")
    yield path
    tracing.stop()


def test_a_traced_span_ends_when_the_gpu_is_done(
    run: Callable[[Call | Backward], Result], stream: Stream, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_at_wait: list[list[str]] = []

    def synchronize(device: torch.device) -> None:
        assert tracing.active is not None
        open_at_wait.append([span.name for span in tracing.active.open_spans.values()])
        stream.wait(stream.queued_ms, "traced")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    assert run(call("work")).forward_ns == 250_000_000
    with pytest.raises(ValueError, match="a fault of the agent"):
        run(call("fail"))
    tracing.stop()
    assert open_at_wait == [["model.work"]], "an agent that failed is not waited for: its error is the answer"
    assert stream.log == ["traced", "copy", "event"]
    spans = [line[1] for line in map(json.loads, trace.read_text().splitlines()) if line[0] == "X"]
    assert spans == ["arguments", "model.work", "result", "arguments", "model.fail"]
