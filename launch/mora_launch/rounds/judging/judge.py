"""Questions to judges and their answers. Each judge sees the candidates in another order, to cancel position bias."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mora_data.reading.fitting import Clip
from mora_runtime.process.run_directory import RunDirectory

from mora_launch.rounds.judging.criteria import Criterion


class Interrupted(Exception):
    """The user asked to stop; all work so far is on disk."""


@dataclass(frozen=True)
class Question:
    """The candidates of one prompt, in the order in which a judge sees them."""

    prompt: str
    criterion: Criterion
    clips: tuple[Clip, ...]  # uint8 (frames, height, width, 3) each


@dataclass(frozen=True)
class JudgeAnswer:
    """A judge's answer.

    Args:
        ranking: indices into `Question.clips`, best first, each once; () if none is good; None for an abstention.
        raw: all answers as received, in order; the second one answers the repeated question.
        note: why it abstained, or another remark.
    """

    ranking: tuple[int, ...] | None
    raw: tuple[str, ...]
    note: str = ""


class Judge(Protocol):
    """Ranks candidates."""

    @property
    def name(self) -> str:
        """Name in reports and statistics."""

    def can_judge(self, criterion: Criterion) -> bool:
        """Whether it can say anything about this criterion; if not, it is not asked, and would abstain."""

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """Provide what `rank` needs, such as a server, for the time of the context.

        Raises:
            Interrupted: the user asked to stop meanwhile.
            MoraError: it could not be started.
        """

    def rank(self, question: Question) -> JudgeAnswer:
        """Answer one question, inside a session. A judge that cannot answer abstains; that is not an error."""


@dataclass(frozen=True)
class Verdict:
    """An answer with the candidates' original numbers, and everything that led to it."""

    judge: str
    criterion: str
    order: tuple[int, ...]  # candidate at each index of the question's clips
    ranking: tuple[int, ...] | None  # candidates, best first; () none is good; None abstained
    raw: tuple[str, ...]
    note: str = ""

    @property
    def best(self) -> int | None:
        """The candidate it ranks first; None if none is good or it abstained."""
        return self.ranking[0] if self.ranking else None


def shuffled_order(num_candidates: int, seed: str) -> tuple[int, ...]:
    """Return the candidate at each index, as a pure function of the seed."""
    order = list(range(num_candidates))
    random.Random(seed).shuffle(order)
    return tuple(order)


def ask(
    judge: Judge, *, prompt: str, criterion_name: str, criterion: Criterion, clips: list[Clip], seed: str
) -> Verdict:
    """Ask one judge one question with shuffled candidates; return the answer with their original numbers."""
    order = shuffled_order(len(clips), seed)
    answer = judge.rank(Question(prompt, criterion, tuple(clips[number] for number in order)))
    ranking = None if answer.ranking is None else tuple(order[index] for index in answer.ranking)
    return Verdict(judge.name, criterion_name, order, ranking, answer.raw, answer.note)
