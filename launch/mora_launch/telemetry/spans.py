"""Spans of requests. Off by default: `active` is None, and all recording code checks it first.

A span goes to a collector (`mora_launch.telemetry.otlp`), to the profiler's trace of this process, or to both, with the
same ids and the same times. The current span is a context variable: it is the parent of spans that begin below it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from mora_launch.telemetry.span_context import SpanContext

Attributes = Mapping[str, str | int | float]
current: ContextVar[SpanContext | None] = ContextVar("current span", default=None)


class Exported(Protocol):
    """A span on its way to a collector."""

    context: SpanContext

    def end(self, name: str, end_ns: int, attributes: Attributes, error: str | None) -> None:
        """Complete it; `end_ns` is on the clock of `time.time_ns`."""


class Exporter(Protocol):
    """Sends spans to a collector."""

    def begin(self, name: str, parent: SpanContext | None, start_ns: int, *, is_request: bool) -> Exported:
        """Begin a span; `start_ns` is on the clock of `time.time_ns`."""

    def close(self) -> None:
        """Send what is left."""


Record = Callable[[str, int, int, dict[str, object]], None]  # name, start and length in ns of CLOCK_MONOTONIC, args


class Spans:
    """Spans of this process.

    Args:
        exporter: None sends none.
        record: adds a span to the profiler's trace; None adds none.
    """

    def __init__(self, exporter: Exporter | None, record: Record | None) -> None:
        self.exporter = exporter
        self.record = record
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def begin(
        self, name: str, parent: SpanContext | None, *, start_ns: int | None = None, is_request: bool = False
    ) -> OpenSpan:
        """Begin a span.

        Args:
            start_ns: on CLOCK_MONOTONIC; None = now.
            is_request: it is a server's span of a client's request.
        """
        return OpenSpan(self, name, parent, time.monotonic_ns() if start_ns is None else start_ns, is_request)

    def wall_ns(self, at_ns: int) -> int:
        """Return a time of CLOCK_MONOTONIC on the clock of `time.time_ns`."""
        return at_ns + self._offset_ns


class OpenSpan:
    """A span that has not ended.

    Attributes:
        name: may be changed until the end.
        context: its ids, for its children.
        attributes: what is known about it, of closed sets: no prompt, no token.
        error: code of the error that ended it.
    """

    def __init__(self, spans: Spans, name: str, parent: SpanContext | None, start_ns: int, is_request: bool) -> None:
        self._spans = spans
        self.name = name
        self._parent = parent
        self._start_ns = start_ns
        self._exported: Exported | None = None
        self.attributes: dict[str, str | int | float] = {}
        self.error: str | None = None
        if spans.exporter is not None:
            self._exported = spans.exporter.begin(name, parent, spans.wall_ns(start_ns), is_request=is_request)
            self.context = self._exported.context
        else:
            self.context = SpanContext.root() if parent is None else parent.child()

    def end(self, end_ns: int | None = None) -> None:
        """Complete the span at a time of CLOCK_MONOTONIC; None = now."""
        ended_ns = time.monotonic_ns() if end_ns is None else end_ns
        if self._exported is not None:
            self._exported.end(self.name, self._spans.wall_ns(ended_ns), self.attributes, self.error)
        if self._spans.record is not None:
            ids: dict[str, object] = {
                "trace_id": self.context.shown_trace_id, "span_id": self.context.shown_span_id, **self.attributes
            }  # fmt: skip
            if self._parent is not None:
                ids["parent_span_id"] = self._parent.shown_span_id
            if self.error is not None:
                ids["error"] = self.error
            self._spans.record(self.name, self._start_ns, ended_ns - self._start_ns, ids)


active: Spans | None = None


def start(spans: Spans) -> None:
    """Record spans of this process from now on."""
    global active
    active = spans


def stop() -> None:
    """Record no more, and send what is left."""
    global active
    spans, active = active, None
    if spans is not None and spans.exporter is not None:
        spans.exporter.close()


@contextmanager
def span(name: str, attributes: Attributes | None = None) -> Iterator[OpenSpan | None]:
    """Record the time inside the block as a child of the current span, and make it the current one."""
    spans = active
    if spans is None:
        yield None
        return
    opened = spans.begin(name, current.get())
    opened.attributes.update(attributes or {})
    token = current.set(opened.context)
    try:
        yield opened
    except BaseException as raised:
        opened.error = str(getattr(raised, "code", type(raised).__name__))
        raise
    finally:
        current.reset(token)
        opened.end()


def past(
    name: str, parent: SpanContext | None, start_ns: int, end_ns: int, attributes: Attributes, error: str | None = None
) -> None:
    """Record a span that has ended already; times are on CLOCK_MONOTONIC."""
    spans = active
    if spans is not None:
        opened = spans.begin(name, parent, start_ns=start_ns)
        opened.attributes.update(attributes)
        opened.error = error
        opened.end(end_ns)
