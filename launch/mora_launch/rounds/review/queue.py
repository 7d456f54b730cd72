"""The queue of sets that a person has to decide, safe for several reviewers at once.

While a reviewer sees a set, his process holds a lock on a file (flock, which ends with the process), so that no other
reviewer gets it. A decision is the same file that agreeing judges write; undo removes it while the round has no
manifest.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mora_runtime.errors import RoundError

from mora_launch.rounds.judging.criteria import CRITERIA
from mora_launch.rounds.store import PlannedSet, RoundFolder, SetDecision, SetFolder


@dataclass(frozen=True)
class Waiting:
    """An undecided set."""

    round: int
    index: int
    planned: PlannedSet
    files: SetFolder

    @property
    def question(self) -> str:
        """The question that the judges were asked."""
        return CRITERIA[self.planned.criterion].question

    @property
    def videos(self) -> list[Path]:
        """Return the videos of its candidates, in order."""
        return [self.files.preview(number) for number in range(len(self.planned.seeds))]


class ReviewQueue:
    """Undecided sets of a run, for one reviewer.

    Args:
        reviewer: name recorded in decisions and statistics.
    """

    def __init__(self, run: Path, reviewer: str) -> None:
        self._run = run
        self._reviewer = reviewer
        self._mine: list[Waiting] = []  # sets that this reviewer has decided, latest last
        if not (run / "rounds").is_dir():
            raise RoundError(f"{run}: has no rounds; expected the directory of a `mora synthesize` run")

    def waiting(self) -> list[Waiting]:
        """Return the undecided sets that both judges have seen, in order, including those of other reviewers."""
        found = []
        for path in sorted((self._run / "rounds").glob("[0-9][0-9]")):
            folder = RoundFolder(self._run, int(path.name))
            plan = folder.plan()
            for index, planned in enumerate(() if plan is None else plan.sets):
                files = folder.set(index)
                if files.decision() is None and files.verdict(0) is not None and files.verdict(1) is not None:
                    found.append(Waiting(folder.number, index, planned, files))
        return found

    @contextmanager
    def next(self, after: Waiting | None = None) -> Iterator[Waiting | None]:
        """Lock the next set that no other reviewer sees, for the time of the block; None if there is none.

        Args:
            after: a set to skip for now: the search starts after it and wraps around.
        """
        sets = self.waiting()
        if after is not None:
            behind = [w for w in sets if (w.round, w.index) > (after.round, after.index)]
            sets = behind + [w for w in sets if w not in behind]
        for waiting in sets:
            with _held(waiting.files.path / ".review.lock") as is_mine:
                if is_mine and waiting.files.decision() is None:
                    yield waiting
                    return
        yield None

    def decide(self, waiting: Waiting, chosen: int | None) -> None:
        """Choose a candidate, or None. The set must be locked.

        Raises:
            RoundError: there is no such candidate, or the set has been decided meanwhile.
        """
        if chosen is not None and not 0 <= chosen < len(waiting.planned.seeds):
            raise RoundError(f"expected a candidate from 0 to {len(waiting.planned.seeds) - 1}, got {chosen}")
        if waiting.files.decision() is not None:
            which = f"round {waiting.round}, set {waiting.index + 1}"
            raise RoundError(f"{which}: another reviewer has decided it meanwhile")
        waiting.files.write_decision(SetDecision(chosen, "reviewer", self._reviewer))
        self._mine.append(waiting)

    def undo(self) -> Waiting | None:
        """Undo this reviewer's latest decision; None if there is none, or its round already has a manifest."""
        while self._mine:
            last = self._mine.pop()
            decision = last.files.decision()
            if decision is None or decision.reviewer != self._reviewer:
                continue
            if RoundFolder(self._run, last.round).manifest.exists():
                return None
            last.files.decision_file.unlink()
            return last
        return None


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Try to take the lock for the time of the block, without waiting; yield whether it succeeded."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
