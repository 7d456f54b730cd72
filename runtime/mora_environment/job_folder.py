"""Folders in the run that all servers of one agent in a training job share, and that a restart finds again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_folder: Path | None = None


def job_folder(name: str) -> Path | None:
    """The agent's shared folder of this name, for results that are expensive to make, such as encoded prompts.

    Call it while the agent is built. Every replica's server of the agent gets the same folder, so files need names that
    tell their content, and must appear whole (`mora_runtime.files.fresh_file`). Rank 0's servers encode prompts before
    the others do, which can then read the results. None outside of a training job.
    """
    if _folder is None:
        return None
    folder = _folder / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def shared_folders(folder: Path | None) -> Iterator[None]:
    """Have `job_folder` return folders in `folder` while the block runs."""
    global _folder
    previous, _folder = _folder, folder
    try:
        yield
    finally:
        _folder = previous
