"""Progress of measuring: a bar with rate and time left in 80 columns, or lines without a terminal."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mora_launch.evaluation.measuring.measurements import Failure
from mora_launch.evaluation.measuring.result import Result

_LINE_EVERY_S = 10.0  # without a terminal
_MAX_NUM_TOLD = 20  # refusals and failures


class MeasuringProgress:
    """A context manager that counts measurements. A refused or failed one is told in a line, once a video and reason.

    Args:
        total: measurements to make.
        num_there: measurements of earlier starts.
    """

    def __init__(self, console: Console, total: int, num_there: int) -> None:
        self._console = console
        self._total = total
        self._num_there = num_there
        self._counts = Counter[str]()
        self._told: set[tuple[str, str]] = set()
        self._started_s = self._told_s = time.monotonic()
        self._bar = Progress(
            TextColumn("measuring"), BarColumn(bar_width=16), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("left"),
            TextColumn("{task.fields[bad]}"), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("measuring", total=total, rate="", bad="")

    def __enter__(self) -> MeasuringProgress:
        if self._num_there:
            self._console.print(f"{self._num_there} results are there already", markup=False)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def take(self, done: Result | Failure) -> None:
        """Count one measurement."""
        kind, why = outcome_of(done)
        self._counts[kind] += 1
        if why and (done.file, why) not in self._told:
            self._told.add((done.file, why))
            self._tell(f"{kind}: {done.file}: {why}")
        number = sum(self._counts.values())
        rate = number / max(time.monotonic() - self._started_s, 1e-6)
        bad = "  ".join(f"{self._counts[each]} {each}" for each in ("refused", "failed") if self._counts[each])
        self._bar.update(self._task, completed=number, rate=f"{60 * rate:.0f}/min", bad=bad)
        if not self._console.is_terminal and (number == self._total or self._is_time()):
            left_s = (self._total - number) / rate
            parts = [f"measured {number}/{self._total}", f"{60 * rate:.0f}/min", f"{left_s:.0f} s left", bad]
            self._console.print("  ".join(filter(None, parts)), markup=False)

    def _tell(self, line: str) -> None:
        if len(self._told) <= _MAX_NUM_TOLD:
            self._console.print(line, markup=False, style="yellow")
        elif len(self._told) == _MAX_NUM_TOLD + 1:
            self._console.print("and more, which are counted here and listed in the report", style="yellow")

    def _is_time(self) -> bool:
        if time.monotonic() - self._told_s < _LINE_EVERY_S:
            return False
        self._told_s = time.monotonic()
        return True


def outcome_of(done: Result | Failure) -> tuple[str, str]:
    """Return how a measurement ended, and why; empty if it was made."""
    if isinstance(done, Failure):
        return "failed", done.why
    return ("refused", done.refused) if done.refused else ("measured", "")
