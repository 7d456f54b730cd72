"""Bodies of requests: how long they may be, how slowly they may come, and how much of them may be held together."""

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
_LET_GO_AFTER_S = 1.0  # when those requests are done with


class BodyRefused(Exception):
    """A body is not read any further.

    Attributes:
        status, text: of the answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass
class BodyRoom:
    """The bytes of all bodies of one server that are being worked on, small ones left out. Of one event loop.

    Attributes:
        max_body_nbytes: of one body.
    """

    max_body_nbytes: int
    max_nbytes: int = field(init=False)
    nbytes: int = 0
    _peak_nbytes: int = 0

    def __post_init__(self) -> None:
        self.max_nbytes = max(MAX_BODIES_NBYTES, self.max_body_nbytes)

    def take(self, nbytes: int) -> None:
        """Hold so many more."""
        self.nbytes += nbytes
        self._peak_nbytes = max(self._peak_nbytes, self.nbytes)

    def give_back(self, nbytes: int) -> None:
        """Hold so many fewer."""
        self.nbytes -= nbytes
        if self.nbytes == 0 and self._peak_nbytes > _FLOOD_NBYTES:
            self._peak_nbytes = 0
            asyncio.get_running_loop().call_later(_LET_GO_AFTER_S, _let_go)


def _let_go() -> None:
    """Give memory back to the system after a flood: errors of refused requests hold what was read in cycles of
    references, and the C library keeps what came in small pieces."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)


class Body:
    """One request's body on its way; `receive` is what the application reads it with.

    Args:
        room: that it shares with the others; `close` gives its part back.
        window_s: see `limits.BODY_WINDOW_S`.
    """

    def __init__(self, receive: Receive, room: BodyRoom, *, window_s: float = BODY_WINDOW_S) -> None:
        self._receive = receive
        self._room = room
        self._window_s = window_s
        self._waited_s = 0.0  # in this window; the time that the application takes is not the client's
        self._window_nbytes = 0
        self._nbytes = 0
        self._held = 0
        self._is_whole = False
        self.refused: tuple[int, str] | None = None  # no error, whose traceback would hold what has been read

    async def receive(self) -> Message:
        """The next message. Raises: BodyRefused: too long, too slow, or there is no room for it now."""
        if self.refused is not None:
            raise BodyRefused(*self.refused)
        try:
            return await self._next()
        except BodyRefused as refused:
            self.refused = (refused.status, refused.text)
            raise

    async def _next(self) -> Message:
        if self._is_whole:
            return await self._receive()  # only the client's leaving can come now
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
                408, f"expected {MIN_BODY_RATE} bytes a second or the end of the body, got less; send it again"
            ) from None

    async def _already_there(self) -> Message | None:
        """What came while the event loop had no time to look: that it was slow is not the client's fault."""
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
                429, f"the requests that are being worked on hold {self._room.nbytes} bytes already; retry later"
            )
        self._room.take(more)
        self._held += more

    def close(self) -> None:
        """The request is done with."""
        self._room.give_back(self._held)
        self._held = 0
