"""Waits for work on behalf of a client until the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import Request
from mora_runtime.errors import Cancelled

_DISCONNECT_TICK_S = 0.25
ResultT = TypeVar("ResultT")


async def while_connected(request: Request, futures: Sequence[Future[ResultT]]) -> list[ResultT]:
    """Return all results in order.

    Raises:
        Cancelled: the client has disconnected.
        Exception: the error of the first future that failed.
    """
    waiting = {on_loop(future) for future in futures}
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=_DISCONNECT_TICK_S, return_when=asyncio.FIRST_EXCEPTION)
        for each in done:
            if (error := each.exception()) is not None:
                raise error
        if waiting and await request.is_disconnected():
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
        while not task.done():
            await asyncio.wait([task], timeout=_DISCONNECT_TICK_S)
            if not task.done() and await request.is_disconnected():
                raise Cancelled("the client has disconnected")
        return task.result()
    finally:
        if task.cancel():
            await asyncio.gather(task, return_exceptions=True)  # until its connection is closed


def on_loop(future: Future[ResultT]) -> asyncio.Future[ResultT]:
    """Wrap a future for this event loop. asyncio does not warn if its error is never read after a disconnect."""
    wrapped: asyncio.Future[ResultT] = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return wrapped
