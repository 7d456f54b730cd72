"""One connection of a client: whose it is, and how long it may take to say what it wants. uvicorn's protocol class."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mora_launch.limits import HEAD_DEADLINE_S
from mora_launch.web.listening import is_loopback
from mora_launch.web.peer import peer_uid

PEER_UID = "peer_uid"  # in the state of every request's scope: int, or None where it is not known


class Connection(H11Protocol):
    """Puts the peer's user id into the scope, and closes a connection whose request does not arrive in time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, PEER_UID: self._peer_uid()}
        self._watch_head()

    def _peer_uid(self) -> int | None:
        if self.client is None or self.server is None or self.server[1] is None:
            return None
        if not (is_loopback(self.client[0]) and is_loopback(self.server[0])):
            return None
        return peer_uid((self.server[0], self.server[1]), self.client)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        """Between requests uvicorn closes an idle connection; this closes one whose next request has begun, or that
        has never made one."""
        is_served = self.cycle is not None and not self.cycle.response_complete
        has_begun = self.cycle is None or bool(self.conn.trailing_data[0])
        if is_served or not has_begun or self.conn.their_state is not h11.IDLE:
            self._stop_watching()
        elif self._head_deadline is None:
            self._head_deadline = self.loop.call_later(HEAD_DEADLINE_S, self.transport.abort)

    def _stop_watching(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None
