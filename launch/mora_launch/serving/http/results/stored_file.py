"""A stored file as an answer: whole, in part, or its headers alone."""

from __future__ import annotations

import os
import time
from email.utils import formatdate

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from mora_launch.serving.http.front import error_answer

_REFUSED = (400, 416)
_DATE_LAG_S = 2.0  # the HTTP server renews the header Date about every second


class StoredFile(FileResponse):
    """The framework's answer, but a wrong `Range` is refused in the format of all other errors, and `Last-Modified` is
    never later than `Date`."""

    def set_stat_headers(self, stat_result: os.stat_result) -> None:
        """Set the headers that depend on the file."""
        super().set_stat_headers(stat_result)
        changed_s = min(stat_result.st_mtime, time.time() - _DATE_LAG_S)
        self.headers["last-modified"] = formatdate(changed_s, usegmt=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        is_refused = False

        async def send_or_refuse(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start" and message["status"] in _REFUSED:
                is_refused = True
                await self._refuse(message, scope, receive, send)
            elif not is_refused:
                await send(message)

        await super().__call__(scope, receive, send_or_refuse)

    async def _refuse(self, message: Message, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"range: expected bytes=FIRST-LAST within the file's {self.headers['content-length']} bytes"
        answer = error_answer(text, message["status"], field="range", code="bad_request")
        answer.raw_headers += [(name, value) for name, value in message["headers"] if name == b"content-range"]
        await answer(scope, receive, send)
