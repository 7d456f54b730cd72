"""Where the run of a command is: the directory that the user names, or a new one in `runs/` of the checkout."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from mora_runtime.errors import ConfigurationError, RunExists

from mora_launch.environments.venvs import ROOT

CONFIG_COPY = "config.json"  # in a run: the configuration that it was started with


def run_path(run: Path | None, name: str, *, resume: bool) -> Path:
    """Return the directory of the run.

    Args:
        run: as the user named it; None makes a new name from `name` and the time.

    Raises:
        RunExists: the named one already holds a run, and `resume` is False.
    """
    if run is None:
        return new_path(name)
    if not resume and (run / CONFIG_COPY).exists():
        raise RunExists(f"{run} already holds a run; give --resume to continue it, or another --run")
    return run


def new_path(name: str) -> Path:
    """Return the directory of a new run that the user does not name; `made_run` makes it."""
    return ROOT / "runs" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def made_run(run: Path | None, path: Path) -> Path:
    """Return the directory to start the run in. One that the user did not name is made here, for this start alone.

    Args:
        run: as the user named it.
        path: from `run_path` or `new_path`.

    Raises:
        ConfigurationError: it cannot be made.
    """
    if run is not None:
        return path  # `RunDirectory` makes or refuses it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return next(candidate for candidate in _names(path) if _is_made(candidate))
    except OSError as error:
        raise ConfigurationError(
            f"run directory {path}: cannot be made ({error.strerror}); name one that you may write to with --run"
        ) from None


def _names(path: Path) -> Iterator[Path]:
    """The name, and the same with numbers: starts within one second make the same name from the time."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


def _is_made(path: Path) -> bool:
    """Make a directory; False if it exists, because then it belongs to another start."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True
