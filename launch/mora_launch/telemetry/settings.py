"""Settings of OpenTelemetry: the section `serving.tracing` of a configuration."""

from __future__ import annotations

from mora_runtime.schema import Settings
from pydantic import Field


class TracingSettings(Settings):
    """Where spans of requests are sent."""

    # an OTLP/HTTP collector, as in OTEL_EXPORTER_OTLP_ENDPOINT, which is used if this is not set
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/@]+(/[^\s]*)?$")
