"""Finds the curves that training has written for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from mora_runtime.errors import ConfigurationError

from mora_launch.environments.venvs import ROOT
from mora_launch.jobs.registry.live_runs import live_runs

_EVENTS = "events.out.tfevents.*"


def folder_with_curves(run: Path | None) -> Path:
    """Return the given folder, or the newest run that has curves.

    Raises:
        ConfigurationError: there are no curves.
    """
    if run is not None:
        if not any(run.rglob(_EVENTS)):
            raise ConfigurationError(f"{run}: expected curves of training in it (files {_EVENTS}), found none")
        return run
    runs = {*live_runs(), *(path for path in (ROOT / "runs").glob("*") if path.is_dir())}
    newest = {path: written for path in runs if (written := _last_written(path)) is not None}
    if not newest:
        raise ConfigurationError(
            f"no run in {ROOT / 'runs'} has curves, and none that is alive; train first, or give RUN"
        )
    return max(newest, key=lambda path: newest[path])


def _last_written(run: Path) -> float | None:
    """The time at which curves of a run were last written, in seconds; None if it has none."""
    return max((path.stat().st_mtime for path in run.rglob(_EVENTS)), default=None)
