"""Stages that a person reviews. Accepted results are stored, so going back and resuming simply run the task again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mora_data.reading.fitting import Clip

from mora_launch.review.decision import StageDecision, StageResult, Step, Stopped
from mora_launch.review.session import ReviewSession
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.procedures import run_task
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Make, stage_seed

Ask = Callable[[ReviewSession], StageDecision]
_STRENGTH = 0.6  # default of an adjustment


class _GoBack(Exception):
    """Unwinds the task, which then runs again with the results that are still accepted."""


class ReviewedStages:
    """Makes candidates for a session and acts on the decisions.

    Args:
        ask: returns the reviewers' decision about the current candidate.
    """

    def __init__(
        self, session: ReviewSession, agents: Agents, request: TaskRequest, ask: Ask,
        on_stage: Callable[[str], None] = lambda name: None,
        on_result: Callable[[str, Clip | str], None] = lambda name, made: None,
    ) -> None:  # fmt: skip
        self._session = session
        self._agents = agents
        self._request = request
        self._ask = ask
        self._on_stage = on_stage
        self._on_result = on_result

    def text(self, name: str, make: Callable[[], str]) -> str:
        """Return the accepted prompt; `again` and `edit` both replace the candidate with another text."""
        known = self._session.accepted(name)
        if known is not None:
            self._on_result(name, known.prompt)
            return known.prompt
        self._on_stage(name)
        candidate = self._session.left_open(name) or StageResult(stage=name, kind="text", prompt=make(), attempt=0)
        while True:
            self._session.offer(candidate)
            self._on_result(name, candidate.prompt)
            decision = self._decision()
            if decision.action == "accept":
                self._session.accept(candidate)
                return candidate.prompt
            if decision.action == "edit":
                candidate = candidate.model_copy(update={"prompt": decision.prompt})
            else:
                candidate = candidate.model_copy(update={"prompt": make(), "attempt": candidate.attempt + 1})

    def frames(self, name: str, prompt: str, make: Make) -> tuple[Clip, str]:
        """Return the accepted picture or clip and its prompt."""
        known = self._session.accepted(name)
        if known is not None:
            accepted = self._session.frames(known)
            self._on_result(name, accepted)
            return accepted, known.prompt
        self._on_stage(name)
        candidate = self._session.left_open(name)
        if candidate is not None:
            frames = self._session.frames(candidate)
            self._session.offer(candidate)
            self._on_result(name, frames)
        else:
            frames = make(prompt, stage_seed(self._request.seed, name, 0))
            candidate = self._offered(StageResult(stage=name, kind="frames", prompt=prompt, attempt=0), frames)
        while True:
            decision = self._decision()
            if decision.action == "accept":
                self._session.accept(candidate)
                return frames, candidate.prompt
            step = Step(**decision.model_dump(include=set(Step.model_fields)))
            candidate, frames = next_candidate(step, candidate, frames, make, self._agents, self._request)
            candidate = self._offered(candidate, frames)

    def _offered(self, candidate: StageResult, frames: Clip) -> StageResult:
        """Offer a candidate to the reviewers; return it with the name of its file."""
        offered = self._session.offer(candidate, frames).candidate
        self._on_result(candidate.stage, frames)
        assert offered is not None, "it was offered now"
        return offered

    def _decision(self) -> StageDecision:
        decision = self._ask(self._session)
        if decision.action == "back":
            self._session.go_back()
            raise _GoBack
        if decision.action == "stop":
            self._session.stop()
            raise Stopped("stopped; the review can be resumed")
        return decision


def next_candidate(
    step: Step, candidate: StageResult, frames: Clip, make: Make, agents: Agents, request: TaskRequest
) -> tuple[StageResult, Clip]:
    """Make the next candidate of a stage from a decision. It is a pure function, so that a run can be repeated."""
    changes: dict[str, Any] = {"steps": (*candidate.steps, step), "file": None}
    if step.action == "adjust":
        seed = stage_seed(request.seed, f"{candidate.stage} adjusted", candidate.attempt)
        strength = step.strength or request.strength or _STRENGTH
        adjusted = agents.edited(step.prompt or candidate.prompt, seed, frames, strength)
        return candidate.model_copy(update=changes), adjusted
    changes |= {"prompt": step.prompt} if step.action == "edit" else {"attempt": candidate.attempt + 1}
    changed = candidate.model_copy(update=changes)
    return changed, make(changed.prompt, stage_seed(request.seed, changed.stage, changed.attempt))


def run_reviewed(request: TaskRequest, agents: Agents, stages: ReviewedStages, session: ReviewSession) -> Clip:
    """Run the task until every stage is accepted. Raises: Stopped: the same folder resumes it."""
    while True:
        try:
            clip = run_task(request, agents, stages)
        except _GoBack:
            continue
        session.finish()
        return clip
