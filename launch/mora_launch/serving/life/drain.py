"""Refuses new work while the server drains, and counts the requests that it has let through. Plain ASGI."""

from __future__ import annotations

import math
import time

from mora_launch.web.access import Refusal
from mora_launch.web.asgi import App, Receive, Scope, Send
from mora_launch.web.guard import refuse

_WORK = frozenset({"POST", "PUT", "PATCH"})  # what makes no work is answered until the end


class Drain:
    """The end of a server, as its endpoints see it.

    Attributes:
        num_requests: requests for work that are not answered yet. The thread of the endpoints alone changes it.
    """

    def __init__(self) -> None:
        self.num_requests = 0
        self._until_s: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether new work is refused."""
        return self._until_s is not None

    def begin(self, timeout_s: float) -> None:
        """Refuse new work from now on; the server will have ended after `timeout_s`."""
        self._until_s = time.monotonic() + timeout_s

    def refusal(self) -> Refusal | None:
        """Return the answer to new work; None if it is welcome."""
        if self._until_s is None:
            return None
        again_s = max(1, math.ceil(self._until_s - time.monotonic()))
        return Refusal(503, None, "the server is being stopped and takes no new work; ask again later", again_s)


class Gate:
    """Wraps the application."""

    def __init__(self, app: App, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _WORK:
            await self._app(scope, receive, send)
            return
        refusal = self._drain.refusal()
        if refusal is not None:
            await refuse(scope, send, refusal)
            return
        self._drain.num_requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.num_requests -= 1
