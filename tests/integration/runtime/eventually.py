"""Reading what another process says of itself: it may say so a moment after its answer."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(read: Callable[[], Value], expected: Value, within_s: float = 10.0) -> Value:
    """The last reading: the expected one as soon as it comes, or whatever there is at the deadline."""
    deadline = time.monotonic() + within_s
    while (found := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.005)
    return found
