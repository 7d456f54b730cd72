"""`python -m benchmarks.vbench_upstream VBENCH_PYTHON FOLDER`, with the interpreter of `.venvs/vbench`.

VBENCH_PYTHON is the interpreter of an environment that has VBench; docs/evaluation.md says how to make it and what has
to be in FOLDER. Each metric of VBench and each of ours runs alone in its own process, by turns, on one core with one
thread. Exit code 1: a score differs, or ours needs more time or memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import add_json_option, save
from benchmarks.vbench_upstream.upstream import DIMENSIONS

_ROOT = Path(__file__).parents[2]
_TOLERANCE = 1e-5
_PERCENT = {"imaging_quality": 100.0}  # VBench's values of single videos of it
_ROW = "{dimension:23}{difference:>11.1e}{upstream_s:>10.2f}{ours_s:>7.2f}{upstream_mb:>10.0f}{ours_mb:>7.0f}"


def main() -> int:
    """Exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.vbench_upstream", description=__doc__)
    parser.add_argument("upstream", type=Path, metavar="VBENCH_PYTHON")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--dimension", choices=DIMENSIONS, action="append", help="only these")
    parser.add_argument("--rounds", type=int, default=1, help="of each metric; the fastest counts")
    parser.add_argument("--core", type=int, default=0, help="that all processes use")
    add_json_option(parser)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.core})
    _run(sys.executable, "-m", "benchmarks.vbench_upstream.material", str(arguments.folder))
    print(f"{'':23}{'largest':>11}{'seconds a video':>17}{'peak MB':>17}")
    print(f"{'dimension':23}{'difference':>11}{'upstream':>10}{'ours':>7}{'upstream':>10}{'ours':>7}")
    rows = []
    for dimension in arguments.dimension or DIMENSIONS:
        rows.append(_compared(arguments.upstream, str(arguments.folder), dimension, arguments.rounds))
        print(_ROW.format(**rows[-1]), flush=True)
    save({"rows": rows}, arguments.json)
    return 0 if all(_is_good(row) for row in rows) else 1


def _compared(upstream: Path, folder: str, dimension: str, num_rounds: int) -> dict[str, Any]:
    theirs, own = [], []
    for _ in range(num_rounds):
        theirs.append(_run(str(upstream), str(Path(__file__).with_name("upstream.py")), folder, dimension))
        own.append(_run(sys.executable, "-m", "benchmarks.vbench_upstream.ours", folder, dimension))
    return {
        "dimension": dimension,
        "difference": _difference(theirs[0], own[0], _PERCENT.get(dimension, 1.0)),
        "upstream_s": _seconds_a_video(theirs),
        "ours_s": _seconds_a_video(own),
        "upstream_mb": max(run["peak_mb"] for run in theirs),
        "ours_mb": max(run["peak_mb"] for run in own),
        "upstream": theirs,
        "ours": own,
    }


def _run(*command: str) -> dict[str, Any]:
    """The object in the last line that a process prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if command[0] == sys.executable:  # `env_vbench` does not install the package that reads videos
        environment["PYTHONPATH"] = f"{_ROOT}{os.pathsep}{_ROOT / 'data'}"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return found


def _difference(theirs: dict[str, Any], own: dict[str, Any], scale: float) -> float:
    """The largest, of the overall value and of single videos, on the scale of the overall value."""
    if theirs["videos"].keys() != own["videos"].keys():
        raise SystemExit(f"expected scores of the same videos, got {[*theirs['videos']]} and {[*own['videos']]}")
    of_videos = [abs(theirs["videos"][name] / scale - score) for name, score in own["videos"].items()]
    return max(abs(theirs["overall"] - own["overall"]), *of_videos)


def _seconds_a_video(runs: list[dict[str, Any]]) -> float:
    """Processor time, which leaves out what other processes had of the core."""
    return float(min(run["processor_s"] / len(run["videos"]) for run in runs))


def _is_good(row: dict[str, Any]) -> bool:
    is_equal = row["difference"] <= _TOLERANCE
    return bool(is_equal and row["ours_s"] <= row["upstream_s"] and row["ours_mb"] <= row["upstream_mb"])


if __name__ == "__main__":
    sys.exit(main())
