"""The offline judge: ranks by measured quality (`measures.py`). It reads no prompt and knows no content.

Where judges are models it has nothing to say that they do not see; without one it is an honest default that keeps broken
clips out: noise, blur, frozen and shuffled frames (`mora bench judges` measures how surely).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from mora_launch.rounds.judge import Answer, Question
from mora_launch.rounds.measures import Measures, measure

Emphasis = Literal["even", "picture", "motion"]
# What one unit of a measure counts. Liveliness and coherence are what tells broken clips from whole ones.
WEIGHTS: dict[str, float] = {"coherence": 1.0, "detail": 1.0, "steadiness": 0.05, "liveliness": 4.0, "colour": 1.0}
_DOUBLED: dict[Emphasis, tuple[str, ...]] = {"even": (), "picture": ("detail", "colour"), "motion": ("steadiness",)}
_BROKEN_LIVELINESS = 0.0  # a clip in which nothing ever changes is no video


@dataclass(frozen=True)
class MeasuredJudge:
    """Ranks by a weighted sum of measures; the criterion's own count double, and so do those of the emphasis."""

    emphasis: Emphasis = "even"

    @property
    def name(self) -> str:
        """measured-picture, ..."""
        return f"measured-{self.emphasis}"

    def rank(self, question: Question) -> Answer:
        """Best first by score; no candidate is good where all stand still."""
        doubled = set(question.criterion.measures) | set(_DOUBLED[self.emphasis])
        found = [measure(clip) for clip in question.clips]
        scores = [score(measures, doubled) for measures in found]
        raw = json.dumps(
            {
                "measures": [{name: round(value, 4) for name, value in m.as_dict().items()} for m in found],
                "scores": [round(value, 4) for value in scores],
            }
        )
        note = "" if question.criterion.measures else "this criterion cannot be measured; ranked by general quality"
        if all(measures.liveliness <= _BROKEN_LIVELINESS for measures in found):
            return Answer((), (raw,), "no candidate moves")
        ranking = sorted(range(len(scores)), key=lambda place: -scores[place])
        return Answer(tuple(ranking), (raw,), note)


def score(measures: Measures, doubled: set[str]) -> float:
    """Weighted sum; a measure in `doubled` counts twice."""
    values = measures.as_dict()
    return sum(weight * values[name] * (2.0 if name in doubled else 1.0) for name, weight in WEIGHTS.items())
