"""Rankings as models are asked to give them, read strictly: what does not fit is no answer, never a guess.

Asked for is one line, `RANKING: 3 > 1 > 4 > 2`, or `RANKING: NONE` where no video is good enough to learn from.
"""

from __future__ import annotations

import re

from mora_runtime.errors import JudgeError

from mora_launch.rounds.judging.judge import JudgeAnswer, Question

_LINE = re.compile(r"^[\s*`]*RANKING\s*:\s*(.+?)[\s*`.]*$", re.MULTILINE)


def instruction(question: Question) -> str:
    """What a model is told, before or after it is shown the videos."""
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
    """The same question again, after an answer that could not be read."""
    example = " > ".join(map(str, range(1, len(question.clips) + 1)))
    return (
        f"That answer could not be read: {fault}. JudgeAnswer again with one line and nothing else: RANKING: and every "
        f"number from 1 to {len(question.clips)} once, best first, joined by >, for example RANKING: {example}. "
        "Or: RANKING: NONE"
    )


def parse_ranking(text: str, number: int) -> tuple[int, ...]:
    """Places counted from 0, best first; () for NONE.

    Raises:
        JudgeError: there is no such line, there are two that differ, or it does not name every video exactly once.
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
    places = tuple(int(part) - 1 for part in parts)
    if sorted(places) != list(range(number)):
        raise JudgeError(f"expected every number from 1 to {number} once, got `{said[:60]}`")
    return places


class RankingDialogue:
    """Asks once, and once more where the answer cannot be read; then it is an abstention."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._raw: list[str] = []
        self.fault = ""

    def take(self, text: str) -> JudgeAnswer | None:
        """Take in an answer; None asks for another one."""
        self._raw.append(text)
        try:
            return JudgeAnswer(parse_ranking(text, len(self._question.clips)), tuple(self._raw))
        except JudgeError as error:
            self.fault = str(error)
        if len(self._raw) < 2:
            return None
        return JudgeAnswer(None, tuple(self._raw), f"could not be read twice: {self.fault}")

    def unanswered(self, why: str) -> JudgeAnswer:
        """An abstention because no answer came."""
        return JudgeAnswer(None, tuple(self._raw), why)
