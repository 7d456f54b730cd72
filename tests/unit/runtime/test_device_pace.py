"""On a GPU an agent is at most one step ahead of the device. A fake stream and fake events replace the GPU."""

from __future__ import annotations

import pytest
import torch
from mora_runtime.device.device_pace import DevicePace
from mora_runtime.errors import Cancelled
from mora_runtime.rpc import activity as published
from mora_runtime.rpc.activity import Activity, report_step

CALL = (b"front", 1)


class Stream:
    """Numbers of the pieces of work that were queued, and of those that something has waited for."""

    queued = 0
    done = 0


class FakeEvent:
    def __init__(self, *, blocking: bool) -> None:
        assert blocking, "a waiting server uses no processor"

    def record(self) -> None:
        self._at = Stream.queued

    def synchronize(self) -> None:
        Stream.done = max(Stream.done, self._at)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Activity:
    """The activity of a server on a GPU, in a call."""
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(Stream, "queued", 0)
    monkeypatch.setattr(Stream, "done", 0)
    made = Activity(keep_pace=DevicePace(torch.device("cuda", 0)).keep, busy_call=CALL)
    monkeypatch.setattr(published, "_activity", made)
    return made


def test_a_step_is_reported_when_the_one_before_is_done(serving: Activity) -> None:
    for step in range(1, 6):
        Stream.queued += 1
        report_step(step, 5)
        assert (Stream.queued, Stream.done) == (step, step - 1)


def test_a_cancelled_call_leaves_one_step_behind(serving: Activity) -> None:
    for step in range(1, 7):
        Stream.queued += 1
        report_step(step, 100)
    serving.cancel(*CALL, None)
    Stream.queued += 1
    with pytest.raises(Cancelled):
        report_step(7, 100)
    assert Stream.queued - Stream.done == 1


def test_on_the_cpu_no_step_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        pytest.fail("a CPU has no events")

    monkeypatch.setattr(torch.cuda, "Event", refuse)
    DevicePace(torch.device("cpu")).keep()
