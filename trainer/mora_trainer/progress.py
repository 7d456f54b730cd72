"""Terminal output of training: a progress bar, or one line per step if there is no terminal; warnings; a summary."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mora_trainer.step import StepReport
from mora_trainer.terminal import Console

_PIPED_WIDTH = 160  # without a terminal: wide enough that no table wraps
_NUM_PIPED_LINES = 10  # of a preparation, without a terminal


class _StepBar(Progress):
    """One line that fits into 80 columns: bar, step, time left, loss, time of a step. Below it, the rest of a step.

    Attributes:
        details: what is shown below the bar.
    """

    def __init__(self, console: Console, *, is_disabled: bool) -> None:
        self.details = ""
        super().__init__(
            TextColumn("training"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("{task.fields[result]}"),
            console=console,
            disable=is_disabled,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and the details of the last step."""
        yield from super().get_renderables()
        if self.details:
            yield Text(self.details, style="dim", no_wrap=False, overflow="fold")  # the console does not wrap


class TrainingProgress:
    """Progress of rank 0; other ranks pass `visible=False` and print nothing.

    Args:
        console: where to draw; default: standard output.
    """

    def __init__(self, *, num_steps: int, first_step: int, visible: bool, console: Console | None = None) -> None:
        width = None if sys.stdout.isatty() else _PIPED_WIDTH
        self.console = console or Console(quiet=not visible, soft_wrap=True, width=width)
        self._num_steps = num_steps
        self._bar = _StepBar(self.console, is_disabled=not (visible and self.console.is_terminal))
        self._task = self._bar.add_task("training", total=num_steps, completed=first_step, result="")

    def start(self) -> None:
        """Start drawing the bar."""
        self._bar.start()

    def step(self, report: StepReport, step_s: float) -> None:
        """Show one finished step."""
        result, details = _result(report, step_s), _details(report, step_s)
        self._bar.details = details
        self._bar.update(self._task, completed=report.step + 1, result=result)
        if not self.console.is_terminal:
            self.console.print(f"step {report.step + 1}/{self._num_steps}  {result}  {details}")

    def tell(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning above the bar."""
        self.console.print(f"warning: {text}", style="yellow")

    def close(self) -> None:
        """Stop drawing the bar."""
        self._bar.stop()


class PreparationProgress:
    """Progress of something before the first step on rank 0; other ranks pass `visible=False` and print nothing."""

    def __init__(self, what: str, *, visible: bool) -> None:
        self._what = what
        self._console = Console(quiet=not visible, soft_wrap=True)
        self._bar = Progress(
            TextColumn(what),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (visible and self._console.is_terminal),
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int) -> None:
        """Show that `done` of `total` parts are done."""
        if self._task is None:
            self._task = self._bar.add_task(self._what)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
        is_next_line = done * _NUM_PIPED_LINES // total > (done - 1) * _NUM_PIPED_LINES // total
        if not self._console.is_terminal and is_next_line:
            self._console.print(f"{self._what} {done}/{total}")


def _result(report: StepReport, step_s: float) -> str:
    """What one wants to know of a step first."""
    if report.skipped or math.isnan(report.gradient_norm):
        return f"SKIPPED: gradients not finite  {step_s:.2f} s"
    return f"loss {report.loss:.4f}  {step_s:.2f} s"


def _details(report: StepReport, step_s: float) -> str:
    """Norms and factors of a step, and what took most of its time."""
    parts = [f"|z_{name}| {norm:.4f}" for name, norm in report.norms.items()]
    parts += [f"alpha_{name} {alpha:.4f}" for name, alpha in report.alphas.items()]
    parts.append(f"grad {report.gradient_norm:.3g}")
    slowest = sorted(report.breakdown_s.items(), key=lambda part: -part[1])[:3]
    total_s = max(step_s, 1e-9)
    parts.append("(" + ", ".join(f"{name} {spent_s / total_s:.0%}" for name, spent_s in slowest) + ")")
    return "  ".join(parts)


def parameter_table(rows: list[tuple[str, str, int, int, float]]) -> Table:
    """Build the table of (agent, what trains, all parameters, trained parameters, learning rate)."""
    table = Table("agent", "trains", "parameters", "trained", "learning rate", box=None, pad_edge=False)
    for agent, scope, total, trained, rate in rows:
        table.add_row(agent, scope, f"{total:,}", f"{trained:,}", f"{rate:g}")
    return table


def summary_table(entries: list[tuple[str, Path | str]]) -> Table:
    """Build the closing summary: where the results are."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for label, path in entries:
        table.add_row(label, str(path))
    return table
