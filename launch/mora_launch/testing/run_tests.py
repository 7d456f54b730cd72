"""`mora test`: the one way to run the tests. Lint and types, then each environment's tests with its own interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

from rich.console import Console

from mora_launch.environments.build import ensure_environments
from mora_launch.environments.catalog import checkout_environments
from mora_launch.environments.venvs import ROOT
from mora_launch.testing.side_by_side import Ended, run_side_by_side
from mora_launch.testing.stages import Stage, stages

_NO_TESTS = 5  # pytest's exit code where options or markers left no test over


def run_tests(
    selected: Sequence[str], options: Sequence[str], console: Console, *, with_long: bool, num_jobs: int | None
) -> int:
    """Run all stages, or those that hold the selected paths, whose long tests run too. Returns 0 when all passed.

    Args:
        selected: test paths; empty for all.
        options: go to pytest.
        num_jobs: stages that run next to each other; None = one for each core, at least two.
    """
    if selected or num_jobs == 1:  # else a stage builds them next to others
        ensure_environments(checkout_environments().values())
    chosen = stages(selected, options, with_long=with_long or bool(selected))
    started_s = time.monotonic()
    if len(chosen) == 1 or num_jobs == 1:
        ended = [_run_in_view(stage, console) for stage in chosen]
    else:
        ended = run_all(chosen, num_jobs or max(2, len(os.sched_getaffinity(0))), console)
    return sum_up(ended, time.monotonic() - started_s, bool(selected or options), console)


def _run_in_view(stage: Stage, console: Console) -> Ended:
    """Run one stage in the terminal, where a debugger can be used."""
    console.print(f"--- {stage}", style="bold", markup=False)
    started_s = time.monotonic()
    code = subprocess.run(stage.command, cwd=ROOT, check=False).returncode
    return Ended(stage, code, time.monotonic() - started_s, "")


def run_all(chosen: Sequence[Stage], num_jobs: int, console: Console) -> list[Ended]:
    """Run stages, `num_jobs` at a time, and print the output of each when it ends."""

    def on_start(stage: Stage) -> None:
        console.print(f"started {stage}", markup=False)

    def on_end(ended: Ended) -> None:
        console.print(f"--- {ended.stage} ({ended.spent_s:.0f} s)", style="bold", markup=False)
        console.file.write(ended.output)
        console.file.flush()

    # A shell starts background commands with SIGINT ignored; children inherit that, and tests of Ctrl-C never end.
    old = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt),
    }
    try:
        return run_side_by_side(
            chosen, num_jobs=num_jobs, folder=ROOT, variables=_variables(num_jobs, console), on_start=on_start,
            on_end=on_end,
        )  # fmt: skip
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt("ended by SIGTERM")


def _variables(num_jobs: int, console: Console) -> dict[str, str]:
    """Of stages side by side: they share the cores, and what they print is for the terminal in the end."""
    num_threads = max(1, len(os.sched_getaffinity(0)) // num_jobs)
    colours = {"PY_COLORS": "1"} if console.is_terminal else {}
    return {"OMP_NUM_THREADS": str(num_threads), **colours}


def sum_up(ended: Sequence[Ended], spent_s: float, is_a_choice: bool, console: Console) -> int:
    """Print which stages failed; 0 when none did and at least one test ran.

    Where tests were chosen, a stage may be left without any.
    """
    fine = (0, _NO_TESTS) if is_a_choice else (0,)
    failed = [str(each.stage) for each in ended if each.exit_code not in fine]
    is_empty = all(each.exit_code == _NO_TESTS for each in ended)
    said = f"all {len(ended)} stages passed" if not is_empty else "no test was selected"
    console.print(("failed: " + ", ".join(failed) if failed else said) + f", in {spent_s:.0f} s", markup=False)
    return 1 if failed or is_empty else 0
