"""SIGINT and SIGTERM of a server: the first asks it to end in order, the second to end at once."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal ended the command before it was done.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, number: int, text: str = "interrupted") -> None:
        super().__init__(text)
        self.exit_code = 128 + number


class EndSignals:
    """Takes both signals while it is entered, in the main thread.

    Attributes:
        received: the signals so far.
        interrupts: the first signal raises Interrupted, as while models are loaded; otherwise signals only end `wait`.
    """

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self.interrupts = True
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._old_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> EndSignals:
        self._old_handlers = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        os.close(self._event)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number))
        self.wake()
        if self.interrupts and len(self.received) == 1:
            raise Interrupted(number)

    def wake(self) -> None:
        """End the current or the next `wait`; any thread may call this."""
        os.eventfd_write(self._event, 1)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for a signal or `wake`."""
        if select.select([self._event], [], [], timeout_s)[0]:
            os.eventfd_read(self._event)
