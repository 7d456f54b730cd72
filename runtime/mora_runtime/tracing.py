"""What a process does when: spans, message arrows and counters of one process, on the clock all processes share.

Off by default: `active` is None, and every place that would record looks at it first. `mora profile` turns it on
through each role's settings and merges the files (`mora_launch.profile`). Events are kept in memory and written when
the process ends, so that recording one costs about a microsecond and no input or output.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Category = Literal["compute", "copy", "wait", "protocol", "io"]

MAX_NUM_EVENTS = 2_000_000


class Tracer:
    """Records events of this process.

    Args:
        path: file that `close` writes: one JSON object a line, `ph` as in Chrome's trace format, times in ns of
            CLOCK_MONOTONIC.
        role: of this process, for people.
    """

    def __init__(self, path: Path, role: str) -> None:
        self._path = path
        self._role = role
        self._events: list[tuple[str, str, str, int, int, dict[str, Any] | None]] = []
        self.num_dropped = 0

    def record(
        self, name: str, category: Category, start_ns: int, end_ns: int, args: dict[str, Any] | None = None
    ) -> None:
        """A span that has ended."""
        self._add(("X", name, category, start_ns, end_ns - start_ns, args))

    @contextmanager
    def span(self, name: str, category: Category, args: dict[str, Any] | None = None) -> Iterator[None]:
        """Record the time inside the block."""
        start_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self.record(name, category, start_ns, time.monotonic_ns(), args)

    def flow(self, flow: str, *, is_start: bool, at_ns: int) -> None:
        """One end of an arrow from the span in which a message was sent to the span that it began."""
        self._add(("s" if is_start else "f", flow, "message", at_ns, 0, None))

    def count(self, name: str, values: dict[str, float]) -> None:
        """Values of a counter from now on."""
        self._add(("C", name, "counter", time.monotonic_ns(), 0, values))

    def _add(self, event: tuple[str, str, str, int, int, dict[str, Any] | None]) -> None:
        if len(self._events) < MAX_NUM_EVENTS:
            self._events.append(event)
        else:
            self.num_dropped += 1

    def close(self) -> None:
        """Write everything; the first line says whose it is."""
        head = {"ph": "M", "role": self._role, "pid": os.getpid(), "tid": threading.main_thread().native_id,
                "num_dropped": self.num_dropped}  # fmt: skip
        with self._path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head) + "\n")
            for kind, name, category, at_ns, spent_ns, args in self._events:
                event = {"ph": kind, "name": name, "cat": category, "ts_ns": at_ns, "dur_ns": spent_ns, "args": args}
                file.write(json.dumps(event) + "\n")


active: Tracer | None = None


def start(path: Path, role: str) -> Tracer:
    """Trace this process from now on."""
    global active
    active = Tracer(path, role)
    return active


@contextmanager
def span(name: str, category: Category, args: dict[str, Any] | None = None) -> Iterator[None]:
    """Record the time inside the block where this process is traced; for places that are not hot."""
    tracer = active
    if tracer is None:
        yield
        return
    with tracer.span(name, category, args):
        yield
