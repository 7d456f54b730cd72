"""The HTTP server in a thread of its own, so that it answers while the main thread loads models and handles signals."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from types import TracebackType

import uvicorn
from mora_runtime.errors import RoleFailed

from mora_launch.web.connection import HttpConnection

log = logging.getLogger(__name__)
_TICK_S = 0.02


class HttpThread:
    """Serves while it is entered.

    Args:
        address: bound socket.
        on_end: called when the server has ended, for whatever reason.
    """

    def __init__(self, server: uvicorn.Server, address: socket.socket, on_end: Callable[[], None]) -> None:
        self._server = server
        self._address = address
        self._on_end = on_end
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def __enter__(self) -> HttpThread:
        self._thread.start()
        while not self._server.started:
            self._thread.join(_TICK_S)
            self.check()
        return self

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._address])  # takes no signals, because this is not the main thread
        except BaseException:  # the end of the thread: the main thread ends the command
            log.critical("the HTTP server has failed", exc_info=True)
        self._on_end()

    def check(self) -> None:
        """Raises: RoleFailed: the server has ended without `stop`."""
        if not self._thread.is_alive():
            raise RoleFailed("the HTTP server has failed; see front.1.jsonl in the logs of the run")

    def stop(self, grace_s: float, is_urgent: Callable[[], bool] = lambda: False) -> None:
        """Take no more connections, and wait up to `grace_s` for the answers that are being sent.

        Args:
            is_urgent: polled meanwhile; true cuts the answers off.
        """
        self._server.config.timeout_graceful_shutdown = grace_s  # type: ignore[assignment]
        self._server.should_exit = True
        while self._thread.is_alive():
            self._thread.join(_TICK_S)
            if is_urgent():
                self._cut_off()

    def _cut_off(self) -> None:
        for connection in list(self._server.server_state.connections):
            assert isinstance(connection, HttpConnection)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                connection.loop.call_soon_threadsafe(connection.transport.abort)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(0.0)
