"""Waits for work on behalf of a client until the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeVar

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


def on_loop(future: Future[ResultT]) -> asyncio.Future[ResultT]:
    """Wrap a future for this event loop. asyncio does not warn if its error is never read after a disconnect."""
    wrapped: asyncio.Future[ResultT] = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return wrapped
