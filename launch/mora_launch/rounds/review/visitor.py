"""One open review page: the set that it shows, locked until its reviewer decides, skips or leaves."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

from mora_runtime.errors import RoundError

from mora_launch.rounds.review.queue import ReviewQueue, Waiting


class NotHeld(RoundError):
    """A request is about a set that this visitor does not see."""

    code = "not_held"


class Visitor:
    """The state of one page. Used by one thread at a time, which holds `lock`.

    Attributes:
        has_left: the visitor has left for good; a request that waited for `lock` meanwhile must not lock another set.
    """

    def __init__(self, run: Path, reviewer: str) -> None:
        self.reviewer = reviewer
        self.lock = threading.Lock()
        self.has_left = False
        self.shown: Waiting | None = None
        self._queue = ReviewQueue(run, reviewer)
        self._hold = ExitStack()

    def held(self, round_number: int, index: int) -> Waiting:
        """Return the set on the page. Raises: NotHeld: it is another one, or none."""
        if self.shown is None or (self.shown.round, self.shown.index) != (round_number, index):
            raise NotHeld(f"round {round_number}, set {index + 1}: is not the set on your page; reload the page")
        return self.shown

    def look(self) -> None:
        """Show the next set if there is none on the page, or it has been decided elsewhere."""
        if self.shown is None or self.shown.files.decision() is not None:
            self.advance()

    def advance(self, after: Waiting | None = None) -> None:
        """Unlock the current set and lock the next one."""
        self._let_go()
        self.shown = self._hold.enter_context(self._queue.next(after))

    def decide(self, round_number: int, index: int, chosen: int | None) -> None:
        """Decide the set on the page, and show the next one.

        Raises:
            NotHeld: the page shows another set; nothing has changed.
            RoundError: the decision is invalid, or the set has been decided meanwhile.
        """
        self._queue.decide(self.held(round_number, index), chosen)
        self.advance()

    def skip(self, round_number: int, index: int) -> None:
        """Show another set first. Raises: NotHeld."""
        self.advance(self.held(round_number, index))

    def undo(self) -> bool:
        """Undo the latest decision, so that its set waits again; return whether there was one."""
        self._let_go()
        undone = self._queue.undo()
        self.advance()
        return undone is not None

    def leave(self) -> None:
        """Unlock the current set for good."""
        self._let_go()
        self.has_left = True

    def _let_go(self) -> None:
        self._hold.close()
        self.shown = None
