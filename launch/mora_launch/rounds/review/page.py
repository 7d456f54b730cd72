"""Review on a web page: candidates side by side, buttons and keys, several reviewers at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from mora_launch.limits import MAX_REVIEW_BODY_NBYTES
from mora_launch.rounds.review.errors import install_errors
from mora_launch.rounds.review.routes import visit_routes
from mora_launch.rounds.review.visits import Visits
from mora_launch.web.access import Access
from mora_launch.web.guard import Guard
from mora_launch.web.http_server import http_server
from mora_launch.web.page_files import PageFiles

PAGE_FILES = ("field.js", "rounds.js", "rounds_keys.js", "rounds_view.js")
_GRACE_S = 2


class ReviewPage:
    """The page of one run.

    Args:
        silent_s: a page that sends no request for so long counts as closed; open pages send one every 5 s.
    """

    def __init__(self, run: Path, *, silent_s: float = 20.0) -> None:
        self._visits = Visits(run, silent_s)
        self._silent_s = silent_s
        self._run = run

    def application(self, access: Access) -> FastAPI:
        """Return the page behind the guard. A visitor can fetch only the files of the candidates on his page."""
        page = PageFiles("rounds.html", PAGE_FILES)
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._lifespan)
        install_errors(app)
        app.include_router(visit_routes(self._run, self._visits))
        app.include_router(page.routes())
        app.add_middleware(
            Guard, access=access, max_body_nbytes=MAX_REVIEW_BODY_NBYTES, pages=page.pages, assets=page.assets
        )
        return app

    def serve(self, access: Access, address: socket.socket) -> None:
        """Serve until interrupted."""
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after a clean end
            http_server(self.application(access), grace_s=_GRACE_S).run(sockets=[address])

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._free_silent())
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            self._visits.close()

    async def _free_silent(self) -> None:
        while True:
            await asyncio.sleep(self._silent_s / 4)
            await run_in_threadpool(self._visits.free_silent)
