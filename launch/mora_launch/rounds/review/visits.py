"""All open review pages of a run: limits their number, and ends those that are silent for too long."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mora_runtime.errors import RoundError

from mora_launch.rounds.review.visitor import Visitor

MOST_VISITORS = 64


class NoVisit(RoundError):
    """The visitor is unknown, has left, or was silent for too long."""

    code = "no_visit"


class TooManyReviewers(RoundError):
    """The limit of open pages is reached."""

    code = "too_many_reviewers"


class Visits:
    """Visitors by their ids, which cannot be guessed.

    Args:
        silent_s: a visitor without a request for so long counts as gone.
    """

    def __init__(self, run: Path, silent_s: float) -> None:
        self._run = run
        self._silent_s = silent_s
        self._visitors: dict[str, Visitor] = {}
        self._heard_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._visitors

    def begin(self, reviewer: str) -> str:
        """Add a visitor and return its id. Raises: TooManyReviewers."""
        self.free_silent()
        visitor = Visitor(self._run, reviewer)
        with self._lock:
            if len(self._visitors) >= MOST_VISITORS:
                raise TooManyReviewers(f"{MOST_VISITORS} reviewers have the page open, which is the limit; retry later")
            identifier = secrets.token_urlsafe(16)
            self._visitors[identifier] = visitor
            self._heard_s[identifier] = time.monotonic()
        return identifier

    @contextmanager
    def visitor(self, identifier: str) -> Iterator[Visitor]:
        """Yield a visitor, locked for this thread inside the block. Raises: NoVisit."""
        with self._lock:
            visitor = self._visitors.get(identifier)
            if visitor is not None:
                self._heard_s[identifier] = time.monotonic()
        if visitor is None:
            raise _no_visit()
        with visitor.lock:
            if visitor.has_left:
                raise _no_visit()
            yield visitor

    def leave(self, identifier: str) -> None:
        """Unlock the set of a visitor; calling it again has no effect."""
        with self._lock:
            visitor = self._visitors.pop(identifier, None)
            self._heard_s.pop(identifier, None)
        if visitor is not None:
            with visitor.lock:
                visitor.leave()

    def free_silent(self) -> None:
        """End the visits that have been silent for too long."""
        oldest_s = time.monotonic() - self._silent_s
        with self._lock:
            silent = [identifier for identifier, heard_s in self._heard_s.items() if heard_s < oldest_s]
        for identifier in silent:
            self.leave(identifier)

    def close(self) -> None:
        """End all visits."""
        for identifier in list(self._visitors):
            self.leave(identifier)


def _no_visit() -> NoVisit:
    return NoVisit("this visit has ended, or was silent for too long; reload the page")
