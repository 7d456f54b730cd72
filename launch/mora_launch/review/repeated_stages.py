"""Stages of a repeated run: texts are reused, pictures and clips are made again by the same decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mora_data.reading.fitting import Clip

from mora_launch.review.decision import StageResult
from mora_launch.review.reviewed_stages import next_candidate
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Make, stage_seed


class RepeatedStages:
    """Runs stages without asking a person. A stage that is not in `before` accepts its first result.

    Args:
        before: the accepted result of each stage; empty unless this run repeats another.

    Attributes:
        taken: the result of each stage of this run, in order.
    """

    def __init__(self, request: TaskRequest, agents: Agents, before: Sequence[StageResult] = ()) -> None:
        self._request = request
        self._agents = agents
        self._before = {candidate.stage: candidate for candidate in before}
        self.taken: list[StageResult] = []

    def text(self, name: str, make: Callable[[], str]) -> str:
        """Return the earlier text, because a language model would not write it again."""
        known = self._before.get(name) or StageResult(stage=name, kind="text", prompt=make(), attempt=0)
        self.taken.append(known)
        return known.prompt

    def frames(self, name: str, prompt: str, make: Make) -> tuple[Clip, str]:
        """Make the frames by the decisions of the earlier run."""
        candidate = StageResult(stage=name, kind="frames", prompt=prompt, attempt=0)
        frames = make(prompt, stage_seed(self._request.seed, name, 0))
        for step in self._before[name].steps if name in self._before else ():
            candidate, frames = next_candidate(step, candidate, frames, make, self._agents, self._request)
        self.taken.append(candidate)
        return frames, candidate.prompt
