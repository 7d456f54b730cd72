"""The offline judge: ranks by measured quality (`measures.py`). It reads no prompt and knows no content.

Where judges are models it has nothing to add; without them it is an honest default that keeps broken clips out: noise,
blur, frozen and shuffled frames (`mora bench judges` measures how surely).
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from mora_runtime.process.run_directory import RunDirectory

from mora_launch.rounds.judging.judge import JudgeAnswer, Question
from mora_launch.rounds.judging.measures import Measures, measure

Emphasis = Literal["even", "picture", "motion"]
# What one unit of a measure counts, set so that a whole clip ranks above the same clip broken (`mora bench judges`).
WEIGHTS: dict[str, float] = {
    "coherence": 0.55,
    "detail": 1.3,
    "cleanness": 0.8,
    "order": 2.25,
    "steadiness": 0.015,
    "liveliness": 2.25,
    "colour": 0.5,
}
_EMPHASIS = 1.5  # factor; at twice, broken clips begin to pass
_STRESSED: dict[Emphasis, tuple[str, ...]] = {
    "even": (),
    "picture": ("detail", "colour"),
    "motion": ("order", "steadiness"),
}
_BROKEN_LIVELINESS = 0.0  # a clip in which nothing ever changes is no video


@dataclass(frozen=True)
class MeasuredJudge:
    """Ranks by a weighted sum of measures; those of the criterion and of the emphasis count half as much again."""

    emphasis: Emphasis = "even"

    @property
    def name(self) -> str:
        """measured-picture, ..."""
        return f"measured-{self.emphasis}"

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """Nothing is needed."""
        return nullcontext()

    def rank(self, question: Question) -> JudgeAnswer:
        """Best first by score; no candidate is good where all stand still."""
        stressed = set(question.criterion.measures) | set(_STRESSED[self.emphasis])
        found = [measure(clip) for clip in question.clips]
        scores = [score(measures, stressed) for measures in found]
        raw = json.dumps(
            {
                "measures": [{name: round(value, 4) for name, value in m.as_dict().items()} for m in found],
                "scores": [round(value, 4) for value in scores],
            }
        )
        note = "" if question.criterion.measures else "this criterion cannot be measured; ranked by general quality"
        if all(measures.liveliness <= _BROKEN_LIVELINESS for measures in found):
            return JudgeAnswer((), (raw,), "no candidate moves")
        ranking = sorted(range(len(scores)), key=lambda place: -scores[place])
        return JudgeAnswer(tuple(ranking), (raw,), note)


def score(measures: Measures, stressed: set[str]) -> float:
    """Weighted sum; a measure in `stressed` counts half as much again."""
    values = measures.as_dict()
    return sum(weight * values[name] * (_EMPHASIS if name in stressed else 1.0) for name, weight in WEIGHTS.items())
