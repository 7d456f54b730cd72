"""`benchmarks.cuda_ipc`, with few rounds: hand-overs of device memory, and deaths of its readers and owners."""

from __future__ import annotations

import subprocess
import sys

from mora_runtime.device.cuda_ipc import why_unavailable

from benchmarks.device_check.figures import Figures, read_figures
from benchmarks.device_check.outcome import CheckFailed, Skipped
from benchmarks.device_check.request import Request
from benchmarks.device_check.source_folders import ROOT

_ROUNDS, _KILLS = 10, 4


def run(request: Request, figures: Figures) -> None:
    """Run the benchmark and take over its figures."""
    reason = why_unavailable()
    if reason is not None:
        raise (Skipped if request.is_dry else CheckFailed)(f"device memory cannot be shared: {reason}")
    file = request.path / "ipc.json"
    words = ["--rounds", str(_ROUNDS), "--kills", str(_KILLS), "--json", str(file)]
    words += ["--device", str(request.torch_device.index or 0)]
    command = [sys.executable, "-m", "benchmarks.cuda_ipc", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, cwd=ROOT, check=False)
    figures.add(**read_figures(file))
    if done.returncode != 0:
        raise CheckFailed(f"benchmarks.cuda_ipc ended with {done.returncode}; its problems are in the log above")
