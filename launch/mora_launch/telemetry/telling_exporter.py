"""Tells when a collector takes no spans. Imported only if OpenTelemetry's SDK is used, which is an optional extra."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


class TellingExporter(SpanExporter):
    """An exporter that tells the first failure, and the first one after each success.

    Args:
        exporter: does the work.
        tell: called by the thread that exports.
    """

    def __init__(self, exporter: SpanExporter, tell: Callable[[], None]) -> None:
        self._exporter = exporter
        self._tell = tell
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        result = self._exporter.export(spans)
        was_failing, self._is_failing = self._is_failing, result is not SpanExportResult.SUCCESS
        if self._is_failing and not was_failing:
            self._tell()
        return result

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter has."""
        return self._exporter.force_flush(timeout_millis)
