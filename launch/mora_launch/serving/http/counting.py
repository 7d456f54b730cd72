"""Counts requests and their times by endpoint and status. Plain ASGI, because a framework's middleware would hide a
client's disconnect from the endpoints."""

from __future__ import annotations

import time

from mora_launch.serving.counters import Counters
from mora_launch.web.asgi import App, Message, Receive, Scope, Send


class Counting:
    """Wraps the whole application.

    Args:
        counters: the server's counters, shown at `/metrics`.
    """

    def __init__(self, app: App, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.monotonic()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            endpoint = getattr(scope.get("route"), "path", "other")  # set by the router
            if endpoint.startswith("/v1"):
                self._counters.num_requests.labels(endpoint, str(status)).inc()
                self._counters.request_s.labels(endpoint).observe(time.monotonic() - started_s)
