"""Waits for work on behalf of a client until the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request
from mora_runtime.errors import Cancelled

ResultT = TypeVar("ResultT")


async def while_connected(request: Request, futures: Sequence[Future[ResultT]]) -> list[ResultT]:
    """Return all results in order. The request's body must have been read.

    Raises:
        Cancelled: the client has disconnected.
        Exception: the error of the first future that failed.
    """
    waiting = {on_loop(future) for future in futures}
    with _client_of(request) as left:
        while waiting:
            done, waiting = await asyncio.wait({*waiting, left}, return_when=asyncio.FIRST_COMPLETED)
            waiting.discard(left)
            for each in done - {left}:
                if (error := each.exception()) is not None:
                    raise error
            if waiting and left in done:
                raise Cancelled("the client has disconnected")
    return [future.result() for future in futures]


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Return the result of a coroutine, which is cancelled when the client disconnects.

    Raises:
        Cancelled: the client has disconnected.
        Exception: an error of the coroutine.
    """
    task = asyncio.ensure_future(work)
    try:
        with _client_of(request) as left:
            await asyncio.wait([task, left], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("the client has disconnected")
        return task.result()
    finally:
        if task.cancel():
            await asyncio.gather(task, return_exceptions=True)  # until its connection is closed


@contextmanager
def _client_of(request: Request) -> Iterator[asyncio.Future[Any]]:
    """Give a future that is done when the client has disconnected."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(left())
    try:
        yield task
    finally:
        task.cancel()


def on_loop(future: Future[ResultT]) -> asyncio.Future[ResultT]:
    """Wrap a future for this event loop. asyncio does not warn if its error is never read after a disconnect."""
    wrapped: asyncio.Future[ResultT] = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return wrapped
