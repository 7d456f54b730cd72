"""Whether the disk has room for what is to be fetched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mora_environment.weights.fetch_answer import FetchAnswer
from mora_runtime.errors import StorageError


def check_room(plan: FetchAnswer, downloads_nbytes: int, conversions_nbytes: int) -> int:
    """Return the number of free bytes where the Hub's cache is.

    Args:
        plan: of any environment; they share the cache.

    Raises:
        StorageError: they are too few.
    """
    cache, converted = _existing(Path(plan.cache)), _existing(Path(plan.converted))
    if os.stat(cache).st_dev == os.stat(converted).st_dev:
        return _check(plan.cache, cache, downloads_nbytes + conversions_nbytes)
    _check(plan.converted, converted, conversions_nbytes)
    return _check(plan.cache, cache, downloads_nbytes)


def _check(folder: str, existing: Path, nbytes: int) -> int:
    free = shutil.disk_usage(existing).free
    if nbytes > free:
        raise StorageError(
            f"{folder}: expected {nbytes / 1e9:.1f} GB of free disk for the models, got {free / 1e9:.1f} GB; free "
            "some, or set HF_HOME to a folder on a larger disk"
        )
    return free


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())
