"""Recording of one process: spans, message arrows, tensor moves and counters, on the clock that all processes share.

Off by default: `active` is None, and all recording code checks it first. `mora profile` turns it on through each role's
settings and merges the files (`mora_launch.profiling`). Recording appends to a queue; a separate thread
(`trace_writer`) writes it, so that a killed role leaves a trace of all but its last moments.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mora_runtime.limits import MAX_NUM_TRACE_EVENTS
from mora_runtime.trace.trace_writer import TraceWriter

Category = Literal["compute", "copy", "wait", "protocol", "io"]
MoveKind = Literal["inline", "copied", "resident", "reference", "spilled", "device", "staged"]


class Event(NamedTuple):
    """One recorded event, with the fields of a line of the trace file; `kind` as in Chrome's trace format."""

    kind: str  # X span, s and f ends of an arrow, i moved tensor, C counter
    name: str
    category: str
    at_ns: int  # CLOCK_MONOTONIC
    spent_ns: int
    thread: int  # native id
    args: dict[str, Any] | None


class Tracer:
    """Records events of this process. Any thread may record.

    Args:
        path: file that grows while the process runs: one JSON array per line, the fields of `Event`.
        role: of this process.
    """

    def __init__(self, path: Path, role: str) -> None:
        self.path = path
        self.role = role
        self.events: deque[Event] = deque()
        self.open_spans: dict[int, Span] = {}  # by id; spans that have not ended
        self.gauges: dict[str, Callable[[], dict[str, float]]] = {}  # by counter; sampled several times a second
        self.num_dropped = 0
        self.is_paused = False
        self._numbers = itertools.count()
        self._writer = TraceWriter(self)

    def add(
        self, kind: str, name: str, category: str, at_ns: int, spent_ns: int, args: dict[str, Any] | None = None
    ) -> None:
        """Record one event of the calling thread; above the process's limit it is counted and dropped."""
        if next(self._numbers) < MAX_NUM_TRACE_EVENTS:
            self.events.append(Event(kind, name, category, at_ns, spent_ns, threading.get_native_id(), args))
        else:
            self.num_dropped += 1

    def flow(self, flow: str, *, is_start: bool, at_ns: int) -> None:
        """Record one end of an arrow, at a time inside the span that sends or receives the message."""
        self.add("s" if is_start else "f", flow, "message", at_ns, 0)

    def move(self, kind: MoveKind, nbytes: int, source: str, target: str, *, spent_ns: int = 0) -> None:
        """Record a tensor of one message.

        Args:
            source, target: identities of the owner of its bytes and of the receiver.
            spent_ns: time to place it in a slot.
        """
        args = {"nbytes": nbytes, "from": source, "to": target, "spent_ns": spent_ns}
        self.add("i", kind, "move", time.monotonic_ns(), 0, args)

    def count(self, name: str, values: Mapping[str, float]) -> None:
        """Record the values of a counter from now on."""
        self.add("C", name, "counter", time.monotonic_ns(), 0, dict(values))

    def close(self) -> None:
        """Write the remaining events and the end line."""
        self._writer.end()


class Span:
    """A context manager that records a block of a traced process."""

    __slots__ = ("_cpu_ns", "_started_ns", "_tracer", "args", "category", "name", "thread")

    def __init__(self, tracer: Tracer, name: str, category: Category, args: dict[str, Any] | None) -> None:
        self._tracer = tracer
        self.name = name
        self.category = category
        self.args = args

    def __enter__(self) -> None:
        self.thread = threading.get_native_id()
        self._cpu_ns = time.process_time_ns() if self.category == "compute" else 0
        self._started_ns = time.monotonic_ns()
        self._tracer.open_spans[id(self)] = self

    def __exit__(self, *_: object) -> None:
        spent_ns = time.monotonic_ns() - self._started_ns
        if self.category == "compute":  # CPU time of all threads: less than the elapsed time = core was lost
            self.args = {**(self.args or {}), "cpu_ns": time.process_time_ns() - self._cpu_ns}
        self._tracer.open_spans.pop(id(self), None)
        self._tracer.add("X", self.name, self.category, self._started_ns, spent_ns, self.args)

    def opened(self) -> Event:
        """An event for a span that has not ended; kind B because its end is unknown."""
        return Event("B", self.name, self.category, self._started_ns, 0, self.thread, self.args)


class _Off:
    """The context manager of a process that is not traced."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_OFF = _Off()
active: Tracer | None = None


def start(path: Path, role: str) -> Tracer:
    """Trace this process from now on."""
    global active
    active = Tracer(path, role)
    return active


def stop() -> None:
    """End the trace of this process, if there is one, and complete its file."""
    global active
    tracer, active = active, None
    if tracer is not None:
        tracer.close()


def pause() -> None:
    """Stop recording until `resume`, as if this process were not traced."""
    global active
    tracer, active = active, None
    if tracer is not None:
        tracer.is_paused = True


def resume(tracer: Tracer) -> None:
    """Record again."""
    global active
    tracer.is_paused = False
    active = tracer


def span(name: str, category: Category, args: dict[str, Any] | None = None) -> Span | _Off:
    """Record the time inside the block if this process is traced.

    Spans of one thread nest; the time of each moment belongs to the innermost one.
    """
    tracer = active
    return _OFF if tracer is None else Span(tracer, name, category, args)
