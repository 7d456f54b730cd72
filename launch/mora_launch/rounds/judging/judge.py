"""What every judge is asked and answers. Each sees candidates in an order of its own, so that places decide nothing."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from mora_data.clips import Clip
from mora_runtime.process.run_directory import RunDirectory

from mora_launch.rounds.judging.criteria import Criterion


class Interrupted(Exception):
    """Asked to stop; everything done so far is on disk."""


@dataclass(frozen=True)
class Question:
    """Candidates of one prompt, in the order in which this judge sees them."""

    prompt: str
    criterion: Criterion
    clips: tuple[Clip, ...]  # uint8 (frames, height, width, 3) each


@dataclass(frozen=True)
class JudgeAnswer:
    """What a judge said.

    Args:
        ranking: places of `Question.clips`, best first, every one once; () where none is good; None is an abstention.
        raw: every answer as it came, in order; the second is to the question asked again.
        note: why it abstained, or what else is worth knowing.
    """

    ranking: tuple[int, ...] | None
    raw: tuple[str, ...]
    note: str = ""


class Judge(Protocol):
    """Ranks candidates."""

    @property
    def name(self) -> str:
        """Which judge it is, in reports and statistics."""

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """What it needs while it is asked, a server for example, is there inside of this.

        Raises:
            Interrupted: asked to stop before it was there.
            MoraError: it cannot be had.
        """

    def rank(self, question: Question) -> JudgeAnswer:
        """JudgeAnswer one question, in a session; what a judge cannot answer is an abstention, not an error."""


@dataclass(frozen=True)
class Verdict:
    """An answer in the candidates' own numbers, with everything that led to it."""

    judge: str
    criterion: str
    order: tuple[int, ...]  # candidate at each place of the question
    ranking: tuple[int, ...] | None  # candidates, best first; () none is good; None abstained
    raw: tuple[str, ...]
    note: str = ""

    @property
    def best(self) -> int | None:
        """The candidate it would take; None where none is good or it abstained."""
        return self.ranking[0] if self.ranking else None


def shuffled_order(num_candidates: int, seed: str) -> tuple[int, ...]:
    """Candidate at each place; a pure function of the seed."""
    order = list(range(num_candidates))
    random.Random(seed).shuffle(order)
    return tuple(order)


def ask(
    judge: Judge, *, prompt: str, criterion_name: str, criterion: Criterion, clips: list[Clip], seed: str
) -> Verdict:
    """Put one question to one judge with the candidates shuffled, and take the shuffling back."""
    order = shuffled_order(len(clips), seed)
    answer = judge.rank(Question(prompt, criterion, tuple(clips[number] for number in order)))
    ranking = None if answer.ranking is None else tuple(order[place] for place in answer.ranking)
    return Verdict(judge.name, criterion_name, order, ranking, answer.raw, answer.note)
