"""Makes the checkout's packages importable where they are not installed. Standard library only."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("runtime", "data", "trainer", "launch", "env_sd3", "env_opensora")


def source_folders() -> list[str]:
    """The checkout's root and packages, then what PYTHONPATH has, such as carried wheels."""
    given = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    return list(dict.fromkeys([str(ROOT), *(str(ROOT / each) for each in _PACKAGES), *given]))


def make_importable() -> None:
    """Add the folders to this process's path, unless an environment has the launcher installed."""
    if importlib.util.find_spec("mora_launch") is None:
        sys.path[:0] = [each for each in source_folders() if each not in sys.path]
