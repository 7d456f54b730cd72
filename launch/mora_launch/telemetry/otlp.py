"""OpenTelemetry's SDK as an exporter of spans, over OTLP/HTTP. Its packages are an optional extra.

The SDK reads its usual variables itself: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER,
OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE and others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mora_runtime.errors import SettingsError

from mora_launch.telemetry.settings import TracingSettings
from mora_launch.telemetry.span_context import SpanContext
from mora_launch.telemetry.spans import Attributes, Exported

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_PATH = "/v1/traces"
_VARIABLE, _VARIABLE_OF_TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_TIMEOUT = "OTEL_EXPORTER_OTLP_TIMEOUT"
_EXPORT_S = 3.0  # for a batch of spans; the SDK would wait for 10 s, also at the end
_INSTALL = "install them with `pip install 'mora-launch[tracing]'`, or leave tracing off"


def exporter_of(settings: TracingSettings, tell: Callable[[str], None]) -> OtlpExporter | None:
    """Return the configured exporter; None if neither the configuration nor a variable names a collector.

    Args:
        tell: called with a line when the collector takes no spans.

    Raises:
        SettingsError: the packages are missing, or a variable asks for another protocol.
    """
    endpoint, key = _endpoint(settings)
    if endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise SettingsError(f"OTEL_EXPORTER_OTLP_PROTOCOL: expected {_PROTOCOL}, got {protocol[:40]}")
    try:
        return OtlpExporter(endpoint, key, tell)
    except ImportError as error:
        raise SettingsError(
            f"{key}: tracing needs OpenTelemetry's packages ({error.name} is missing); {_INSTALL}"
        ) from None


def _endpoint(settings: TracingSettings) -> tuple[str | None, str]:
    """Return the full address of the collector, and what named it."""
    if settings.endpoint is not None:
        base, key = settings.endpoint, "serving.tracing.endpoint"
    elif named := os.environ.get(_VARIABLE_OF_TRACES):
        return named, _VARIABLE_OF_TRACES  # the standard says that it is the full address
    else:
        base, key = os.environ.get(_VARIABLE, ""), _VARIABLE
    if not base:
        return None, key
    base = base.rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH, key


class OtlpExporter:
    """Sends spans in the background, in batches.

    Args:
        endpoint: full address of the collector's endpoint for traces.
        key: the setting or variable that named it.
        tell: called with a line when it takes no spans.

    Raises:
        ImportError: OpenTelemetry's SDK or its exporter is not installed.
    """

    def __init__(self, endpoint: str, key: str, tell: Callable[[str], None]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from mora_launch.telemetry.telling_exporter import TellingExporter

        own = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "mora"}
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=None if os.environ.get(_TIMEOUT) else _EXPORT_S)
        lost = (
            f"{key}: {endpoint} takes no spans. They are lost until it does; requests are not affected. The log of the "
            "run says why"
        )
        self._provider.add_span_processor(BatchSpanProcessor(TellingExporter(exporter, lambda: tell(lost))))
        self._tracer = self._provider.get_tracer("mora")

    def begin(self, name: str, parent: SpanContext | None, start_ns: int, *, is_request: bool) -> Exported:
        """Begin a span."""
        from opentelemetry import trace
        from opentelemetry.context import Context

        above = Context()
        if parent is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if parent.is_sampled else trace.TraceFlags.DEFAULT)
            remote = trace.SpanContext(parent.trace_id, parent.span_id, is_remote=is_request, trace_flags=flags)
            above = trace.set_span_in_context(trace.NonRecordingSpan(remote), above)
        kind = trace.SpanKind.SERVER if is_request else trace.SpanKind.INTERNAL
        return _OtlpSpan(self._tracer.start_span(name, context=above, kind=kind, start_time=start_ns))

    def close(self) -> None:
        """Send what is left; a collector that does not answer delays the end by the time of one attempt."""
        self._provider.shutdown()


class _OtlpSpan:
    """A span of the SDK."""

    def __init__(self, span: Span) -> None:
        self._span = span
        made = span.get_span_context()
        self.context = SpanContext(made.trace_id, made.span_id, made.trace_flags.sampled)

    def end(self, name: str, end_ns: int, attributes: Attributes, error: str | None) -> None:
        """Complete it."""
        from opentelemetry.trace import StatusCode

        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(end_ns)
