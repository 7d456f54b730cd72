"""Turns the recording of a server's spans on and off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mora_launch.telemetry import spans
from mora_launch.telemetry.otlp import exporter_of
from mora_launch.telemetry.settings import TracingSettings

FRONT_ROLE = "front.0"  # of this process in the profiler's trace
REQUEST = "request"  # category of its spans there


@contextmanager
def recording(settings: TracingSettings, traces: Path | None, tell: Callable[[str], None]) -> Iterator[None]:
    """Record spans inside the block, if a collector is configured or a trace is wanted.

    Args:
        traces: folder for the profiler's trace of this process; None writes none.
        tell: called with a line when the collector takes no spans.

    Raises:
        SettingsError: tracing is configured, and its packages are missing.
    """
    exporter = exporter_of(settings, tell)
    if exporter is None and traces is None:
        yield
        return
    record: spans.Record | None = None
    if traces is not None:
        from mora_runtime.trace import tracing

        tracer = tracing.start(traces / f"{FRONT_ROLE}.jsonl", FRONT_ROLE)

        def record(name: str, start_ns: int, spent_ns: int, args: dict[str, object]) -> None:
            tracer.add("X", name, REQUEST, start_ns, spent_ns, args)

    spans.start(spans.Spans(exporter, record))
    try:
        yield
    finally:
        spans.stop()
        if traces is not None:
            tracing.stop()
