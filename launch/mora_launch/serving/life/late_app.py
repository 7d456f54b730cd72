"""Answers for an application that is made only when its models are loaded. Plain ASGI."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from fastapi import FastAPI

from mora_launch.serving.life.health import WAIT_S, health, readiness
from mora_launch.web.access import Access, Refusal
from mora_launch.web.asgi import App, Receive, Scope, Send
from mora_launch.web.guard import Guard, refuse


class LateApp:
    """Answers `/healthz`, and 503 to all else, until `put` hands over to the application.

    Args:
        access: access rules, which are the same before and after.

    Attributes:
        servers: tells whether each server is ready, for `/readyz`.
    """

    def __init__(self, access: Access) -> None:
        self._app: App = Guard(self._answer, access=access, max_body_nbytes=sys.maxsize)  # no body is read
        self.servers: Callable[[], Mapping[str, bool]] = dict
        self._lifespan = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD") and scope["path"] == "/healthz":
            await health()(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD") and scope["path"] == "/readyz":
            await readiness(scope, "loading", self.servers())(scope, receive, send)
        else:
            text = "models are loading; ask again later"
            await refuse(scope, send, Refusal(503, None, text, WAIT_S, "server_loading"))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._lifespan.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    def put(self, app: FastAPI) -> None:
        """Hand over to the application; the caller is not the thread that answers, which has started."""
        assert self._loop is not None, "the server has not started"
        asyncio.run_coroutine_threadsafe(self._begin(app), self._loop).result()

    async def _begin(self, app: FastAPI) -> None:
        await self._lifespan.enter_async_context(app.router.lifespan_context(app))
        self._app = app
