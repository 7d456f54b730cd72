"""Seconds spent in the parts of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mora_runtime.trace import tracing


@dataclass
class Stopwatch:
    """Seconds spent per named part of a step."""

    spent_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time inside the block to `part`."""
        started_s = time.perf_counter()
        try:
            with tracing.span(part, "protocol"):
                yield
        finally:
            self.add(part, time.perf_counter() - started_s)

    def add(self, part: str, spent_s: float) -> None:
        """Add time that was measured elsewhere."""
        self.spent_s[part] = self.spent_s.get(part, 0.0) + spent_s
