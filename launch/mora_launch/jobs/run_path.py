"""Where the run of a command is: the directory that the user names, or a new one in `runs/` of the checkout."""

from __future__ import annotations

import time
from pathlib import Path

from mora_runtime.errors import RunExists

from mora_launch.environments.venvs import ROOT

CONFIG_COPY = "config.json"  # in a run: the configuration that it was started with


def run_path(run: Path | None, name: str, *, resume: bool) -> Path:
    """Return the directory of the run.

    Args:
        run: as the user named it; None makes a new name from `name` and the time.

    Raises:
        RunExists: it already holds a run, and `resume` is False.
    """
    path = run or ROOT / "runs" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not resume and (path / CONFIG_COPY).exists():
        raise RunExists(f"{path} already holds a run; give --resume to continue it, or another --run")
    return path
