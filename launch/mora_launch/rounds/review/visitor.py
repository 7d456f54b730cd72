"""One open review page: the set that it shows, held until its reviewer decides, skips, or leaves."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

from mora_runtime.errors import RoundError

from mora_launch.rounds.review.queue import ReviewQueue, Waiting


class NotHeld(RoundError):
    """A request is about a set that this visitor is not shown."""

    code = "not_held"


class Visitor:
    """Used by one thread at a time, which holds `lock`.

    Attributes:
        has_left: for ever; a request that was waiting for the lock meanwhile must not hold anything again.
    """

    def __init__(self, run: Path, reviewer: str) -> None:
        self.reviewer = reviewer
        self.lock = threading.Lock()
        self.has_left = False
        self.shown: Waiting | None = None
        self._queue = ReviewQueue(run, reviewer)
        self._hold = ExitStack()

    def held(self, round_number: int, index: int) -> Waiting:
        """The set that is shown. Raises: NotHeld: it is another one, or none."""
        if self.shown is None or (self.shown.round, self.shown.index) != (round_number, index):
            raise NotHeld(f"round {round_number}, set {index}: is not the one you are shown; look again")
        return self.shown

    def look(self) -> None:
        """Show the next set, where none is shown or the shown one has been decided elsewhere."""
        if self.shown is None or self.shown.files.decision() is not None:
            self.advance()

    def advance(self, after: Waiting | None = None) -> None:
        """Let go of the set that is shown and hold the next one."""
        self._let_go()
        self.shown = self._hold.enter_context(self._queue.next(after))

    def decide(self, round_number: int, index: int, chosen: int | None) -> None:
        """Decide the set that is shown, and show the next.

        Raises:
            NotHeld: it is another one; nothing has changed.
            RoundError: the decision does not fit, or it has been decided meanwhile.
        """
        self._queue.decide(self.held(round_number, index), chosen)
        self.advance()

    def skip(self, round_number: int, index: int) -> None:
        """Show another one first. Raises: NotHeld."""
        self.advance(self.held(round_number, index))

    def undo(self) -> bool:
        """Take the latest decision back; its set waits again. Returns whether there was one."""
        self._let_go()
        undone = self._queue.undo()
        self.advance()
        return undone is not None

    def leave(self) -> None:
        """Let go of everything."""
        self._let_go()
        self.has_left = True

    def _let_go(self) -> None:
        self._hold.close()
        self.shown = None
