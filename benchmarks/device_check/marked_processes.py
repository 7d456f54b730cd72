"""The processes that a part started, directly or not: all of them inherit one environment variable."""

from __future__ import annotations

import psutil

MARK = "MORA_DEVICE_CHECK"
_END_S = 5.0  # for processes that are about to end


def processes_left(mark: str) -> list[psutil.Process]:
    """Processes with this value of `MARK` that do not end by themselves."""
    found = [process for process in psutil.process_iter() if _has(process, mark)]
    _, alive = psutil.wait_procs(found, timeout=_END_S)
    return alive


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes and wait for their end."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=_END_S)


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get(MARK) == mark)
    except psutil.Error:  # ended meanwhile, or another user's
        return False
