"""Counts requests, logs one line for each, and gives each a span. Plain ASGI, because a framework's middleware would
hide a client's disconnect from the endpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mora_runtime.files.shown_text import shown_line
from mora_runtime.process.logs import LogFields

from mora_launch.serving.counters import PICTURE_KIND, Counters, FinishedReason
from mora_launch.serving.http.request_record import RequestRecord
from mora_launch.serving.life.drain import STOPPING
from mora_launch.telemetry import spans
from mora_launch.telemetry.span_context import SpanContext
from mora_launch.web.access import TENANT
from mora_launch.web.asgi import App, Message, Receive, Scope, Send, header_values

log = logging.getLogger("mora.requests")
_CLOSED_STATUS = 499  # of a request whose client has left
_MAX_PATH_LENGTH = 200
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_KINDS = {"/v1/images/": PICTURE_KIND, "/v1/videos": "video"}  # by the beginning of the path


@dataclass
class _Exchange:
    """A request and the answer as far as it has been sent."""

    scope: Scope
    record: RequestRecord
    begun_ns: int = field(default_factory=time.monotonic_ns)
    status: int = 500
    is_complete: bool = False
    client_left: bool = False

    @property
    def endpoint(self) -> str:
        """The path with names in place of values, which the router has found."""
        return str(getattr(self.scope.get("route"), "path", "other"))

    @property
    def method(self) -> str:
        """The method; one that HTTP does not define has OpenTelemetry's name for such."""
        return self.scope["method"] if self.scope["method"] in _METHODS else "_OTHER"

    @property
    def spent_s(self) -> float:
        """Time since the request began."""
        return (time.monotonic_ns() - self.begun_ns) / 1e9

    @property
    def kind(self) -> str | None:
        """What the request asks the server to make; None for one that asks for no work."""
        path = str(self.scope["path"])
        if self.scope["method"] != "POST" or "/review" in path:
            return None
        return next((kind for start, kind in _KINDS.items() if path.startswith(start)), None)

    def outcome(self) -> tuple[FinishedReason, str]:
        """How the request ended, and the code of its error."""
        if self.status == _CLOSED_STATUS or (self.client_left and not self.is_complete):
            return "cancelled", self.record.code or "cancelled"
        if self.status >= 400 or self.record.code:
            is_refused = self.record.code == STOPPING or 400 <= self.status < 500
            return "refused" if is_refused else "failed", self.record.code or f"http_{self.status}"
        return "completed", ""


class _Arrival:
    """Tells the queue that the work of a request is on its way, until it has come or the request ends."""

    def __init__(self, expect: Callable[[int], None]) -> None:
        self._expect = expect
        self._has_come = False
        expect(1)

    def come(self) -> None:
        """Tell it once."""
        if not self._has_come:
            self._has_come = True
            self._expect(-1)


class Counting:
    """Wraps the application.

    Args:
        counters: the server's counters, shown at `/metrics`.
        expect: `WorkQueue.expect`.
    """

    def __init__(self, app: App, counters: Counters, expect: Callable[[int], None] = lambda _: None) -> None:
        self._app = app
        self._counters = counters
        self._expect = expect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, RequestRecord.begun())
        span = _begun_span(exchange)
        arrival = _Arrival(self._expect if exchange.kind == PICTURE_KIND else lambda _: None)
        exchange.record.on_submitted = arrival.come

        async def heard() -> Message:
            message = await receive()
            exchange.client_left |= message["type"] == "http.disconnect"
            return message

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                identifier = (b"x-request-id", exchange.record.id.encode())
                message = {**message, "headers": [*message.get("headers", []), identifier]}
            elif not message.get("more_body", False):
                exchange.is_complete = True
            await send(message)

        try:
            await self._app(scope, heard, watched)
        finally:
            arrival.come()
            self._count(exchange)
            _log(exchange)
            if span is not None:
                _end_span(span, exchange)

    def _count(self, exchange: _Exchange) -> None:
        self._counters.num_requests.labels(exchange.endpoint, str(exchange.status)).inc()
        self._counters.request_s.labels(exchange.endpoint).observe(exchange.spent_s)
        kind = exchange.kind
        reason, code = exchange.outcome()
        if kind == PICTURE_KIND or (kind == "video" and reason == "refused"):  # other videos are counted when they end
            self._counters.count_end(kind, reason, code, exchange.spent_s)


def _log(exchange: _Exchange) -> None:
    record, scope = exchange.record, exchange.scope
    fields = {
        "method": exchange.method, "path": shown_line(scope["path"][:_MAX_PATH_LENGTH]), "status": exchange.status,
        "ms": round(exchange.spent_s * 1e3, 1), "id": record.id,
    }  # fmt: skip
    more = {"code": exchange.outcome()[1], "job": record.job, "tenant": scope.get(TENANT)}
    with LogFields(**fields, **{name: value for name, value in more.items() if value}):
        log.info("request")


def _begun_span(exchange: _Exchange) -> spans.OpenSpan | None:
    if spans.active is None:
        return None
    headers = header_values(exchange.scope, b"traceparent")
    parent = SpanContext.from_traceparent(headers[0]) if len(headers) == 1 else None
    opened = spans.active.begin(exchange.method, parent, start_ns=exchange.begun_ns, is_request=True)
    spans.current.set(opened.context)
    return opened


def _end_span(span: spans.OpenSpan, exchange: _Exchange) -> None:
    span.name = f"{exchange.method} {exchange.endpoint}"
    reason, code = exchange.outcome()
    span.attributes |= {
        "http.request.method": exchange.method, "http.route": exchange.endpoint,
        "http.response.status_code": exchange.status, "mora.request_id": exchange.record.id,
    }  # fmt: skip
    if exchange.record.job:
        span.attributes["mora.video_id"] = exchange.record.job
    if reason in ("failed", "cancelled"):  # by the conventions for HTTP, a refused request is its client's error
        span.error = code
    span.end()
