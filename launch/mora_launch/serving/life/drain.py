"""Refuses new work while the server drains, and counts the requests that it has let through. Plain ASGI."""

from __future__ import annotations

import math
import time

from mora_launch.serving.http.request_record import note_error
from mora_launch.web.access import Refusal
from mora_launch.web.asgi import App, Receive, Scope, Send
from mora_launch.web.guard import refuse

_WORK = frozenset({"POST", "PUT", "PATCH"})  # what makes no work is answered until the end
STOPPING = "server_stopping"  # code of the refusal


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

    @property
    def retry_after_s(self) -> int | None:
        """When the server will have ended, so that another one may answer; None while it takes new work."""
        return None if self._until_s is None else max(1, math.ceil(self._until_s - time.monotonic()))

    def refusal(self) -> Refusal | None:
        """Return the answer to new work; None if it is welcome."""
        if not self.has_begun:
            return None
        text = "the server is being stopped and takes no new work; ask again later"
        return Refusal(503, None, text, self.retry_after_s, STOPPING)


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
            note_error(STOPPING)
            await refuse(scope, send, refusal)
            return
        self._drain.num_requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.num_requests -= 1
