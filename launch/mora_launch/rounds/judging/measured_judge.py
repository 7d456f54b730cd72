"""The offline judge: ranks by measured quality (`measures.py`), without regard to the prompt or the content.

It adds nothing to judges that are models. Without them it is a default that keeps broken clips out: noise, blur,
frozen and shuffled frames (`mora bench judges` measures how reliably).
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from mora_runtime.process.run_directory import RunDirectory

from mora_launch.rounds.judging.criteria import Criterion
from mora_launch.rounds.judging.emphasis import STRESSED, Emphasis
from mora_launch.rounds.judging.judge import JudgeAnswer, Question
from mora_launch.rounds.judging.measures import MEASURES, Measures, measure

_EMPHASIS = 1.5  # factor; with 2, some broken clips pass
_BROKEN_LIVELINESS = 0.0  # of a clip in which nothing ever changes


@dataclass(frozen=True)
class MeasuredJudge:
    """Ranks by a weighted sum of measures; those of the criterion and of the emphasis count 1.5 times."""

    emphasis: Emphasis = "even"

    @property
    def name(self) -> str:
        """Name with the emphasis: measured-picture, ..."""
        return f"measured-{self.emphasis}"

    def can_judge(self, criterion: Criterion) -> bool:
        """Only a criterion that can be measured without the prompt."""
        return bool(criterion.measures)

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """Do nothing: the judge needs no session."""
        return nullcontext()

    def rank(self, question: Question) -> JudgeAnswer:
        """Rank by score, best first; no candidate is good if none of them moves."""
        if not self.can_judge(question.criterion):
            return JudgeAnswer(None, (), "this criterion cannot be measured")
        stressed = set(question.criterion.measures) | set(STRESSED[self.emphasis])
        found = [measure(clip) for clip in question.clips]
        scores = [score(measures, stressed) for measures in found]
        raw = json.dumps(
            {
                "measures": [{name: round(value, 4) for name, value in measures.items()} for measures in found],
                "scores": [round(value, 4) for value in scores],
            }
        )
        if all(measures["liveliness"] <= _BROKEN_LIVELINESS for measures in found):
            return JudgeAnswer((), (raw,), "no candidate moves")
        ranking = sorted(range(len(scores)), key=lambda index: -scores[index])
        return JudgeAnswer(tuple(ranking), (raw,))


def score(measures: Measures, stressed: set[str]) -> float:
    """Return the weighted sum of the measures; those in `stressed` count 1.5 times."""
    return sum(
        each.weight * measures[name] * (_EMPHASIS if name in stressed else 1.0) for name, each in MEASURES.items()
    )
