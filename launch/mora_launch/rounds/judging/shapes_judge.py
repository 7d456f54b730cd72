"""The judge of drawn shapes: reads colour, place, direction and speed from the pixels and compares with the prompt.

It serves rounds with the tiny models that draw shapes (`configs/shapes.yaml`), whose results can so be measured.
"""

from __future__ import annotations

import json
import zlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from mora_data.moving_shapes import MovingShape
from mora_data.seen_shapes import clip_agreement
from mora_runtime.process.run_directory import RunDirectory

from mora_launch.rounds.judging.criteria import Criterion
from mora_launch.rounds.judging.emphasis import Emphasis
from mora_launch.rounds.judging.judge import JudgeAnswer, Question

_READ = {"picture": ("colour", "begins"), "motion": ("direction", "speed")}


@dataclass(frozen=True)
class ShapesJudge:
    """Ranks by the number of properties that agree with the prompt.

    With `emphasis` picture or motion it is strict about its own properties: a candidate is good only if they all agree.
    """

    emphasis: Emphasis = "even"

    @property
    def name(self) -> str:
        """Name with the emphasis: shapes-picture, ..."""
        return f"shapes-{self.emphasis}"

    def can_judge(self, criterion: Criterion) -> bool:
        """Only agreement with the prompt."""
        return criterion.is_about_prompt

    def session(self, directory: RunDirectory) -> AbstractContextManager[object]:
        """Do nothing: the judge needs no session."""
        return nullcontext()

    def rank(self, question: Question) -> JudgeAnswer:
        """Rank by agreement, best first; none is good if no candidate agrees in all that this judge is strict about.

        It abstains if the prompt describes no shape.
        """
        wanted = MovingShape.of_prompt(question.prompt)
        if wanted is None or not self.can_judge(question.criterion):
            return JudgeAnswer(None, (), "this judge only says whether drawn shapes agree with their prompt")
        found = [clip_agreement(wanted, clip) for clip in question.clips]
        own = [[value for name, value in each.items() if name in _READ.get(self.emphasis, each)] for each in found]
        # the last key lets both judges prefer the same one of equal candidates, which they see in different orders
        ties = [zlib.crc32(clip.tobytes()) for clip in question.clips]
        ranking = sorted(
            range(len(found)), key=lambda index: (-sum(own[index]), -sum(found[index].values()), ties[index])
        )
        if not all(own[ranking[0]]):
            return JudgeAnswer((), (json.dumps(found),), "no candidate shows what the prompt says")
        return JudgeAnswer(tuple(ranking), (json.dumps(found),))
