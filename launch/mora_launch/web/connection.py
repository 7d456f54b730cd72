"""uvicorn's protocol class for one connection: finds its user, and limits how slowly a client may send and read."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mora_launch.limits import (
    HEAD_DEADLINE_S,
    MAX_LEFT_OVER_NBYTES,
    MAX_NUM_CONNECTIONS,
    MAX_NUM_PIECES,
    WRITE_DEADLINE_S,
)
from mora_launch.web.listening import is_loopback
from mora_launch.web.peer import peer_uid

PEER_UID = "peer_uid"  # key in the state of every request's scope: int, or None if unknown
_LEAST_PIECE_NBYTES = 64  # on average, because every chunk of a body costs time, however short it is


class HttpConnection(H11Protocol):
    """Puts the peer's user id into the scope, and closes connections that a client keeps open without progress."""

    _num_open: ClassVar[Counter[int | str]] = Counter()  # by user, or address

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._peer: int | str = ""
        self._left_over_nbytes = 0  # bytes of a body that came after the answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        uid = self._peer_uid()
        self.app_state = {**self.app_state, PEER_UID: uid}
        self._peer = uid if uid is not None else self.client[0] if self.client else ""
        self._num_open[self._peer] += 1
        if self._peer != os.getuid() and self._num_open[self._peer] > MAX_NUM_CONNECTIONS:
            transport.abort()
        self._watch_head()

    def _peer_uid(self) -> int | None:
        if self.client is None or self.server is None or self.server[1] is None:
            return None
        if not (is_loopback(self.client[0]) and is_loopback(self.server[0])):
            return None
        return peer_uid((self.server[0], self.server[1]), self.client)

    def data_received(self, data: bytes) -> None:
        if self._is_unwanted(data):
            self.transport.abort()
            return
        super().data_received(data)
        self._watch_head()

    def _is_unwanted(self, data: bytes) -> bool:
        """Return whether to abort: a long rest of a body after the answer, or a body in many tiny chunks."""
        if self.conn.their_state is not h11.SEND_BODY:
            self._left_over_nbytes = 0
            return False
        if self.cycle is not None and self.cycle.response_complete:
            self._left_over_nbytes += len(data)
            if self._left_over_nbytes > MAX_LEFT_OVER_NBYTES:
                return True
        num_pieces = data.count(b"\r\n")
        is_chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        return is_chunked and num_pieces > MAX_NUM_PIECES and len(data) < _LEAST_PIECE_NBYTES * num_pieces

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_deadline()
        self._stop_write_deadline()
        self._num_open[self._peer] -= 1
        if self._num_open[self._peer] <= 0:
            del self._num_open[self._peer]
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        """Limit the time for the first request, for a request that has begun, and for the rest of a body after the
        answer. uvicorn itself limits the idle time between requests."""
        is_served = self.cycle is not None and not self.cycle.response_complete
        waits_for_head = self.conn.their_state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))
        if is_served or not (waits_for_head or self.conn.their_state is h11.SEND_BODY):
            self._stop_head_deadline()
        elif self._head_deadline is None:
            self._head_deadline = self.loop.call_later(HEAD_DEADLINE_S, self.transport.abort)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:
        """Watch a client that reads its answer more slowly than it is written."""
        super().pause_writing()  # type: ignore[no-untyped-call, unused-ignore]
        self._watch_writing(self.transport.get_write_buffer_size())

    def _watch_writing(self, before: int) -> None:
        self._stop_write_deadline()
        self._write_deadline = self.loop.call_later(WRITE_DEADLINE_S, self._look_at_writing, before)

    def _look_at_writing(self, before: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now >= before:
            self.transport.abort()
        else:
            self._watch_writing(now)

    def resume_writing(self) -> None:
        self._stop_write_deadline()
        super().resume_writing()  # type: ignore[no-untyped-call, unused-ignore]

    def _stop_head_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
