"""Structured logs: one JSON object per line, one file for each role and generation, through Python's logging module.

Every line has `ts`, `level`, `event`, `logger`, `run`, `role`, `gen` and `pid`; lines inside a step also have `step`,
lines inside a call `peer` and `req`, the id of the peer's call.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextvars import ContextVar, Token
from logging.handlers import RotatingFileHandler

from mora_runtime.limits import MAX_LOG_NBYTES
from mora_runtime.process import envvars
from mora_runtime.process.run_directory import RunDirectory

_fields: ContextVar[dict[str, object]] = ContextVar("fields of log lines", default={})  # noqa: B039 - never changed


class LogFields:
    """A context manager that adds fields to all lines which this thread logs inside the block."""

    __slots__ = ("_mine", "_token")

    def __init__(self, **fields: object) -> None:
        self._mine = fields
        self._token: Token[dict[str, object]]

    def __enter__(self) -> None:
        self._token = _fields.set({**_fields.get(), **self._mine})

    def __exit__(self, *_: object) -> None:
        _fields.reset(self._token)


class _JsonLines(logging.Formatter):
    def __init__(self, run: str, role: str, generation: int) -> None:
        super().__init__()
        self._common = {"run": run, "role": role, "gen": generation, "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": round(time.time(), 6),
            "level": record.levelname,
            "event": record.getMessage(),
            "logger": record.name,
            **self._common,
            **_fields.get(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _LogFile(RotatingFileHandler):
    """Rotates a file that has reached its limit. The base class formats every line twice, to rotate just before it."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - the base class's name
        return self.stream is not None and self.stream.tell() >= self.maxBytes


def start_logging(run: RunDirectory, *, role: str, generation: int) -> None:
    """Send this process's log to `<run>/logs/<role>.<generation>.jsonl`, and rotate older lines to `.jsonl.1`."""
    path = run.logs / f"{role}.{generation}.jsonl"
    handler = _LogFile(path, maxBytes=MAX_LOG_NBYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(_JsonLines(run.path.name, role, generation))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(envvars.log_level())
