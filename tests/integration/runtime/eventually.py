"""Reads the state that another process reports, which may follow a moment after its answer."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(read: Callable[[], Value], expected: Value, within_s: float = 10.0) -> Value:
    """The last reading: the expected one as soon as it arrives, or the one at the deadline."""
    deadline = time.monotonic() + within_s
    while (found := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.005)
    return found
