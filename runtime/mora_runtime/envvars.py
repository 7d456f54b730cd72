"""Every environment variable that the runtime reads."""

from __future__ import annotations

import os


def log_level() -> str:
    """`MORA_LOG_LEVEL`: DEBUG, INFO (default), WARNING or ERROR."""
    return os.environ.get("MORA_LOG_LEVEL", "INFO").upper()
