"""Structured logs: one JSON object a line, one file for each role and attempt, through the standard logging module."""

from __future__ import annotations

import json
import logging
import os
import time

from mora_runtime import envvars
from mora_runtime.run_directory import RunDirectory


class _JsonLines(logging.Formatter):
    def __init__(self, role: str, generation: int) -> None:
        super().__init__()
        self._common = {"role": role, "gen": generation, "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": round(time.time(), 6),
            "level": record.levelname,
            "event": record.getMessage(),
            "logger": record.name,
            **self._common,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_logging(run: RunDirectory, *, role: str, generation: int) -> None:
    """Send this process's log to `<run>/logs/<role>.<generation>.jsonl`; called once, at start."""
    handler = logging.FileHandler(run.logs / f"{role}.{generation}.jsonl", encoding="utf-8")
    handler.setFormatter(_JsonLines(role, generation))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(envvars.log_level())
