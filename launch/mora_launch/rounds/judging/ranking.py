"""Asks models for rankings and parses them strictly: an invalid answer is refused, never guessed.

The expected answer is one line, `RANKING: 3 > 1 > 4 > 2`, or `RANKING: NONE` if no video is good enough to learn from.
"""

from __future__ import annotations

import re

from mora_runtime.errors import JudgeError

from mora_launch.rounds.judging.judge import JudgeAnswer, Question

_LINE = re.compile(r"^[\s*`]*RANKING\s*:\s*(.+?)[\s*`.]*$", re.MULTILINE)


def instruction(question: Question) -> str:
    """Return the instruction to a model, to send before or after the videos."""
    number = len(question.clips)
    example = " > ".join(map(str, range(number, 0, -1)))
    return (
        f"{number} videos, numbered 1 to {number}, were made for the prompt: {question.prompt!r}. Of each you see "
        f"frames in the order of time. Judge by one criterion alone, {question.criterion.title}: "
        f"{question.criterion.question} "
        "The order in which the videos are shown means nothing. End your answer with one line that ranks all of "
        f"them, best first, in exactly this form:\nRANKING: {example}\nWhere not one is good enough to learn from, end "
        "with:\nRANKING: NONE"
    )


def reminder(question: Question, fault: str) -> str:
    """Return the text that repeats the question after an invalid answer."""
    example = " > ".join(map(str, range(1, len(question.clips) + 1)))
    return (
        f"That answer could not be read: {fault}. Answer again with one line and nothing else: RANKING: and every "
        f"number from 1 to {len(question.clips)} once, best first, joined by >, for example RANKING: {example}. "
        "Or: RANKING: NONE"
    )


def parse_ranking(text: str, number: int) -> tuple[int, ...]:
    """Parse positions, counted from 0, best first; () for NONE.

    Raises:
        JudgeError: there is no such line, two of them differ, or the line does not name every video exactly once.
    """
    found = {line.strip() for line in _LINE.findall(text)}
    if len(found) != 1:
        raise JudgeError("it has no line `RANKING: ...`" if not found else "it has rankings that differ")
    said = found.pop()
    if said.upper() == "NONE":
        return ()
    parts = [part.strip() for part in said.split(">")]
    if not all(re.fullmatch(r"[0-9]{1,3}", part) for part in parts):
        raise JudgeError(f"expected numbers joined by >, got `{said[:60]}`")
    indices = tuple(int(part) - 1 for part in parts)
    if sorted(indices) != list(range(number)):
        raise JudgeError(f"expected every number from 1 to {number} once, got `{said[:60]}`")
    return indices


class RankingDialogue:
    """Asks once, and once more if the answer is invalid; after two invalid answers the judge abstains."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._raw: list[str] = []
        self.fault = ""

    def take(self, text: str) -> JudgeAnswer | None:
        """Take an answer; return None to ask once more."""
        self._raw.append(text)
        try:
            return JudgeAnswer(parse_ranking(text, len(self._question.clips)), tuple(self._raw))
        except JudgeError as error:
            self.fault = str(error)
        if len(self._raw) < 2:
            return None
        return JudgeAnswer(None, tuple(self._raw), f"two answers could not be read: {self.fault}")

    def unanswered(self, why: str) -> JudgeAnswer:
        """Return an abstention because there was no answer."""
        return JudgeAnswer(None, tuple(self._raw), why)
