"""A limit on the memory of requests, checked before they allocate it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mora_launch.serving.http.admission import TooBusy

_RETRY_AFTER_S = 10


class HeldBytes:
    """A memory limit that all requests share.

    Args:
        most_nbytes: limit of all requests together.
    """

    def __init__(self, most_nbytes: int) -> None:
        self._most_nbytes = most_nbytes
        self._lock = threading.Lock()
        self.nbytes = 0

    @contextmanager
    def held(self, nbytes: int) -> Iterator[None]:
        """Reserve `nbytes` inside the block. Raises: TooBusy: they exceed the limit."""
        with self._lock:
            if self.nbytes + nbytes > self._most_nbytes:
                text = f"pictures and videos that are being decoded already need up to {self.nbytes} bytes"
                raise TooBusy(f"{text}, the limit is {self._most_nbytes}; retry later", _RETRY_AFTER_S)
            self.nbytes += nbytes
        try:
            yield
        finally:
            with self._lock:
                self.nbytes -= nbytes
