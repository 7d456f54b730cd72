"""A file that one thread writes while any number of clients read it to its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from fastapi.concurrency import run_in_threadpool
from mora_runtime.errors import EndpointFailed

_CHUNK_NBYTES = 64 << 10


class GrowingFile:
    """Tells readers of a file when it has grown and when it is whole.

    Attributes:
        has_content: whether there is something to read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.has_content = False
        self._lock = threading.Lock()
        self._readers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._is_whole: bool | None = None  # None while it is written

    def grown(self) -> None:
        """Tell that more has been written."""
        with self._lock:
            self.has_content = True
            self._wake_readers()

    def end(self, *, is_whole: bool) -> None:
        """Tell that nothing more will be written. Without `is_whole`, readers fail after the last byte."""
        with self._lock:
            self._is_whole = is_whole
            self._wake_readers()

    def _wake_readers(self) -> None:
        for event, loop in self._readers.items():
            loop.call_soon_threadsafe(event.set)

    def chunks(self) -> AsyncIterator[bytes]:
        """Give the content as it is written.

        Raises:
            FileNotFoundError: at once, if it has been removed.
            EndpointFailed: after the last byte, if the file will not become whole.
        """
        return self._chunks(open(self.path, "rb"))

    async def _chunks(self, opened: BinaryIO) -> AsyncIterator[bytes]:
        event = asyncio.Event()
        with opened as handle:
            with self._lock:
                self._readers[event] = asyncio.get_running_loop()
            try:
                while True:
                    is_whole = self._is_whole  # before the last read
                    event.clear()
                    while chunk := await run_in_threadpool(handle.read, _CHUNK_NBYTES):
                        yield chunk
                    if is_whole is not None:
                        break
                    await event.wait()
            finally:
                with self._lock:
                    del self._readers[event]
        if not is_whole:
            raise EndpointFailed("the video has failed or was deleted while it was made")
