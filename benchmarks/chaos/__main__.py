"""`mora bench chaos --kills N --json FILE`: kill processes of real jobs and check that the result is the same.

Half of the deaths are planned at the kill points of a step, each (role, point) in turn; the others happen at random
moments, some to two processes at once. If the launcher is one of them, the job is resumed. Every job must end with the
bytes of an undisturbed job, and leave nothing behind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from mora_launch.config.train_config import load_config
from mora_launch.environments.tiny_models import ensure_tiny_models
from mora_runtime.process.faults import POINTS
from mora_trainer.terminal import Console

from benchmarks.chaos.job import ROOT, HurtJob
from benchmarks.chaos.storm import DOUBLE, LOADING, TRAINING, Storm, StormReport
from benchmarks.figures import add_json_option, publish
from benchmarks.machine import describe_machine

_KILLS_A_JOB = 12


def measure(num_kills: int, seed: int, folder: Path, console: Console) -> dict[str, Any]:
    """Run a storm; returns the figures of `mora bench chaos`."""
    ensure_tiny_models(load_config(ROOT / "configs" / "tiny.yaml", []), console)
    calm = HurtJob(folder / "undisturbed")
    if calm.wait(600) != 0:
        calm.end()
        raise SystemExit(f"the undisturbed job failed:\n{calm.said[-3000:]}")
    storm = Storm(calm.run, folder, seed, lambda line: console.print(line, markup=False))
    report = storm.rage(num_kills, num_double=max(1, num_kills // 10), kills_a_job=min(_KILLS_A_JOB, num_kills))
    return _figures(report)


def _figures(report: StormReport) -> dict[str, Any]:
    wanted = [*POINTS, LOADING, TRAINING, DOUBLE, f"{DOUBLE}, launcher"]
    return {
        "kills": report.num_kills,
        "by_phase": dict(report.by_phase),
        "missed_phases": [phase for phase in wanted if not report.by_phase[phase]],
        "double_kills": report.num_double,
        "hangs": report.num_hangs,
        "leaked_processes": sum(leaks.num_processes for leaks in report.leaks),
        "leaked_segments": sum(leaks.num_segments for leaks in report.leaks),
        "leaked_fds": report.leaked_fds,
        "leaked_shm_files": sum(leaks.num_shm_files for leaks in report.leaks),
        "identical_runs": report.num_identical,
        "different_runs": len(report.different),
        "differences": report.different,
        "machine": describe_machine(),
    }


def main() -> int:
    """Command line of the storm; returns 1 if anything hung, leaked or differed."""
    parser = argparse.ArgumentParser(prog="mora bench chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="mora-chaos-") as folder:
        figures = measure(arguments.kills, arguments.seed, Path(folder), console)
    publish(figures, arguments.json)
    if figures["missed_phases"]:
        console.print(f"this storm missed {', '.join(figures['missed_phases'])}", style="yellow", markup=False)
    bad = ("hangs", "leaked_processes", "leaked_segments", "leaked_fds", "leaked_shm_files", "different_runs")
    return 1 if any(figures[name] for name in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
