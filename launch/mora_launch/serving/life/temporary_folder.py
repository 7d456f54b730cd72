"""Temporary files where the system has no folder for them, as in a container whose root is read-only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def ensure_temporary_folder(run: Path) -> None:
    """Let this process and its children use a folder of the run if no usual one can be written."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        folder = run / "tmp"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
