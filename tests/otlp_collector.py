"""A collector of OpenTelemetry spans in this process: a small HTTP server that decodes what an exporter sends."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

DEADLINE_S = 60.0


@dataclass(frozen=True)
class CollectedSpan:
    """One span as a collector shows it."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    is_error: bool
    service: str


@dataclass
class Collector:
    """Attributes: endpoint: what `serving.tracing.endpoint` is set to."""

    endpoint: str = ""
    spans: list[CollectedSpan] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, content: bytes) -> None:
        """Decode one request of an exporter."""
        request = ExportTraceServiceRequest.FromString(content)
        found = [
            _collected(span, _attributes(group.resource.attributes).get("service.name", ""))
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]
        with self.changed:
            self.spans += found
            self.changed.notify_all()

    def trace(self, trace_id: str, *, names: set[str]) -> list[CollectedSpan]:
        """Wait until a trace has spans of all these names, and return its spans in the order of their start."""

        def found() -> list[CollectedSpan]:
            return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start_ns)

        with self.changed:
            is_there = self.changed.wait_for(lambda: names <= {span.name for span in found()}, DEADLINE_S)
            assert is_there, (names, self.spans)
            return found()


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def _collected(span: Any, service: str) -> CollectedSpan:
    return CollectedSpan(
        span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.start_time_unix_nano,
        span.end_time_unix_nano, _attributes(span.attributes), span.status.code == 2, service,
    )  # fmt: skip


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            is_packed = self.headers.get("content-encoding") == "gzip"
            assert self.path == "/v1/traces", self.path
            collector.take(gzip.decompress(content) if is_packed else content)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
