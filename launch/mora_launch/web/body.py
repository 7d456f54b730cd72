"""Limits on request bodies: the length and speed of each, and the memory of all together."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from dataclasses import dataclass, field

from mora_launch.limits import BODY_WINDOW_S, MAX_BODIES_NBYTES, MIN_BODY_RATE, SMALL_BODY_NBYTES
from mora_launch.web.asgi import Message, Receive

_GRACE_S = 0.1
_FLOOD_NBYTES = 16 << 20
_LET_GO_AFTER_S = 1.0  # after the last of those requests has ended


class BodyRefused(Exception):
    """A body was refused and is not read further.

    Attributes:
        status, text: HTTP status and message of the answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass
class BodyRoom:
    """Counts the bytes of all bodies that a server is processing, except small ones. Used in one event loop.

    Attributes:
        max_body_nbytes: limit of one body.
    """

    max_body_nbytes: int
    max_nbytes: int = field(init=False)
    nbytes: int = 0
    _peak_nbytes: int = 0

    def __post_init__(self) -> None:
        self.max_nbytes = max(MAX_BODIES_NBYTES, self.max_body_nbytes)

    def take(self, nbytes: int) -> None:
        """Count `nbytes` more."""
        self.nbytes += nbytes
        self._peak_nbytes = max(self._peak_nbytes, self.nbytes)

    def give_back(self, nbytes: int) -> None:
        """Count `nbytes` less."""
        self.nbytes -= nbytes
        if self.nbytes == 0 and self._peak_nbytes > _FLOOD_NBYTES:
            self._peak_nbytes = 0
            asyncio.get_running_loop().call_later(_LET_GO_AFTER_S, _let_go)


def _let_go() -> None:
    """Return memory to the system after a flood: errors of refused requests keep bodies alive in reference cycles, and
    the C library keeps freed memory of small pieces."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only in glibc
    if trim is not None:
        trim(0)


class Body:
    """The body of one request while it arrives. The application reads it with `receive`.

    Args:
        room: counts it together with all other bodies until `close`.
        window_s: see `limits.BODY_WINDOW_S`.
    """

    def __init__(self, receive: Receive, room: BodyRoom, *, window_s: float = BODY_WINDOW_S) -> None:
        self._receive = receive
        self._room = room
        self._window_s = window_s
        self._waited_s = 0.0  # for the client in this window; the application's own time does not count
        self._window_nbytes = 0
        self._nbytes = 0
        self._held = 0
        self._is_whole = False
        self.refused: tuple[int, str] | None = None  # not an exception: its traceback would keep the body alive

    async def receive(self) -> Message:
        """Return the next message. Raises: BodyRefused: the body is too long or slow, or all bodies are too large."""
        if self.refused is not None:
            raise BodyRefused(*self.refused)
        try:
            return await self._next()
        except BodyRefused as refused:
            self.refused = (refused.status, refused.text)
            raise

    async def _next(self) -> Message:
        if self._is_whole:
            return await self._receive()  # the next message can only be a disconnect
        message = await self._in_time()
        self._is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        self._count(len(message.get("body", b"")))
        return message

    async def _in_time(self) -> Message:
        started_s = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, self._window_s - self._waited_s)):
                message = await self._receive()
            self._waited_s += time.monotonic() - started_s
            return message
        except TimeoutError:
            if (late := await self._already_there()) is not None:
                return late
            raise BodyRefused(
                408, f"expected at least {MIN_BODY_RATE} bytes a second or the end of the body, got less; send it again"
            ) from None

    async def _already_there(self) -> Message | None:
        """Return a message that arrived while the event loop was busy, which is not the client's fault."""
        try:
            async with asyncio.timeout(_GRACE_S):
                return await self._receive()
        except TimeoutError:
            return None

    def _count(self, nbytes: int) -> None:
        self._nbytes += nbytes
        self._window_nbytes += nbytes
        if self._nbytes > self._room.max_body_nbytes:
            raise BodyRefused(413, f"expected at most {self._room.max_body_nbytes} bytes, got more")
        if self._window_nbytes >= MIN_BODY_RATE * self._window_s:
            self._waited_s = 0.0
            self._window_nbytes = 0
        more = self._nbytes - self._held if self._nbytes > SMALL_BODY_NBYTES else 0
        if self._room.nbytes + more > self._room.max_nbytes:
            raise BodyRefused(
                429, f"requests in progress already have {self._room.nbytes} bytes in memory; retry later"
            )
        self._room.take(more)
        self._held += more

    def close(self) -> None:
        """Stop counting the body, after the request has ended."""
        self._room.give_back(self._held)
        self._held = 0
