"""What is known about the request that is being answered, for its metrics, its line in the log, and its span."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

_current: ContextVar[RequestRecord | None] = ContextVar("request", default=None)


@dataclass
class RequestRecord:
    """One request.

    Attributes:
        id: the header `x-request-id` of its answer.
        code: of the error that it ended with; empty if it did not.
        job: id of the video job that it made.
        on_submitted: called once its work is in the queue.
    """

    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")
    code: str = ""
    job: str = ""
    on_submitted: Callable[[], None] = lambda: None

    @classmethod
    def begun(cls) -> RequestRecord:
        """Return a new record, which is the current one of this task and of what it starts."""
        made = cls()
        _current.set(made)
        return made


def note_error(code: str) -> None:
    """Record the error that the current request ends with."""
    record = _current.get()
    if record is not None:
        record.code = code


def note_job(identifier: str) -> None:
    """Record the video job that the current request has made."""
    record = _current.get()
    if record is not None:
        record.job = identifier


def note_submitted() -> None:
    """Record that all work of the current request is in the queue."""
    record = _current.get()
    if record is not None:
        record.on_submitted()
