"""Every environment variable that the runtime reads."""

from __future__ import annotations

import os


def log_level() -> str:
    """`MORA_LOG_LEVEL`: DEBUG, INFO (default), WARNING or ERROR."""
    return os.environ.get("MORA_LOG_LEVEL", "INFO").upper()


def fault() -> str:
    """`MORA_FAULT`: faults to inject, for tests (see `faults`); empty = none."""
    return os.environ.get("MORA_FAULT", "")


def set_fault(text: str) -> None:
    """Set `MORA_FAULT` for this process and those that it starts from now on."""
    os.environ["MORA_FAULT"] = text
