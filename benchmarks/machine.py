"""Describes the machine on which figures were measured."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

_WATCHED_NS = 250_000_000
_GAP_NS = 100_000  # longer than any interrupt


def describe_machine() -> dict[str, Any]:
    """Cores, processor and versions; nothing that names the host."""
    return {
        "num_cores": len(os.sched_getaffinity(0)),
        "cpu": _processor(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_1min": round(os.getloadavg()[0], 2),
        "lost_share": [round(lost_share(core), 3) for core in sorted(os.sched_getaffinity(0))],
    }


def lost_share(core: int) -> float:
    """Share of a quarter of a second in which a busy loop on this core did not run.

    A busy host takes the cores of a virtual machine away without a notice; figures measured meanwhile say little.
    """
    every_core = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        lost_ns = 0
        started_ns = last_ns = time.perf_counter_ns()
        while last_ns - started_ns < _WATCHED_NS:
            now_ns = time.perf_counter_ns()
            if now_ns - last_ns > _GAP_NS:
                lost_ns += now_ns - last_ns
            last_ns = now_ns
        return lost_ns / (last_ns - started_ns)
    finally:
        os.sched_setaffinity(0, every_core)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
