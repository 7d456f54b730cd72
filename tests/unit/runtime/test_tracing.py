"""Tracing of a process: off by default, bounded, and on disk when the process is killed."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mora_runtime.rpc.torch_trace import CLOCK_MARK, TorchTrace
from mora_runtime.tensors.arena import Arena
from mora_runtime.tensors.marshalling import to_wire
from mora_runtime.tensors.tensor_store import Peer, TensorStore
from mora_runtime.trace import tracing

_KILLED = """
import sys
from pathlib import Path
from mora_runtime.trace import tracing

tracer = tracing.start(Path(sys.argv[1]), "video.0")
with tracing.span("loss", "compute"):
    pass
with tracing.span("backward", "compute"):
    print("inside", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "image.0.jsonl"
    tracing.stop()


def lines(path: Path) -> list[list[Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def spans(path: Path) -> list[list[Any]]:
    return [line for line in lines(path) if line[0] == "X"]


def test_a_process_that_is_not_traced_records_nothing() -> None:
    assert tracing.active is None
    assert tracing.span("loss", "compute") is tracing.span("send", "protocol"), "one object for all, made once"


def test_spans_nest_and_the_file_says_that_it_is_whole(path: Path) -> None:
    tracing.start(path, "image.0")
    with tracing.span("outer", "protocol", {"step": 3}), tracing.span("inner", "compute"):
        pass
    tracing.stop()
    assert tracing.active is None
    assert lines(path)[0][:3] == ["M", 1, "image.0"]
    assert lines(path)[-1] == ["E", 0]
    inner, outer = spans(path)
    assert (inner[1], outer[1]) == ("inner", "outer")
    assert outer[3] <= inner[3]
    assert inner[3] + inner[4] <= outer[3] + outer[4]
    assert outer[6] == {"step": 3}
    assert inner[6]["cpu_ns"] >= 0


def test_an_error_ends_its_span(path: Path) -> None:
    tracing.start(path, "image.0")
    with pytest.raises(ValueError, match="inside"), tracing.span("loss", "compute"):
        raise ValueError("inside")
    tracing.stop()
    assert [line[1] for line in spans(path)] == ["loss"]


def test_events_beyond_the_limit_are_counted_and_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_NUM_TRACE_EVENTS", 5)
    tracing.start(path, "image.0")
    for _ in range(8):
        with tracing.span("loss", "compute"):
            pass
    tracing.stop()
    assert len(spans(path)) <= 5
    assert lines(path)[-1][0] == "E"
    assert lines(path)[-1][1] >= 3


def test_a_killed_process_leaves_what_it_recorded_and_what_it_was_doing(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "inside\n"
    deadline = time.monotonic() + 60
    while '["B", "backward"' not in path.read_text():  # a file cannot be waited for
        assert time.monotonic() < deadline, "the open span was never written"
    child.kill()
    child.communicate(timeout=60)
    assert [line[1] for line in spans(path)] == ["loss"]
    assert lines(path)[-1][0] != "E"


def test_moves_record_how_a_tensor_was_sent(path: Path) -> None:
    arena = Arena(1 << 20, spill_nbytes=1 << 20)
    store = TensorStore("image.0.1.ab", arena)
    peer = Peer("coordinator.0.1.cd")
    peer.announced.update(("image.0.1.ab", number) for number in range(1, 9))
    resident = arena.empty((64, 64))
    tracing.start(path, "image.0")
    to_wire(store, peer, {"small": torch.zeros(4), "large": torch.zeros(64, 64), "resident": resident})
    tracing.stop()
    moves = [(line[1], line[6]["nbytes"]) for line in lines(path) if line[0] == "i"]
    assert moves == [("inline", 16), ("copied", 16384), ("resident", 16384)]


def test_the_torch_profile_contains_the_marks_of_our_clock(path: Path) -> None:
    tracing.start(path, "image.0")
    profile = TorchTrace()
    profile.begin()
    torch.mm(torch.ones(4, 4), torch.ones(4, 4))
    written = profile.end()
    tracing.stop()
    events = json.loads(written.read_text())["traceEvents"]
    theirs = [event for event in events if event.get("name") == CLOCK_MARK and event.get("cat") == "user_annotation"]
    ours = [line for line in spans(path) if line[1] == CLOCK_MARK]
    assert len(theirs) == len(ours) > 0
    assert any(event.get("name") == "aten::mm" for event in events)
