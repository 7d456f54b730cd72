"""The decisions of a reviewer, and the state of a review that they change."""

from __future__ import annotations

from typing import Any, Literal

from mora_runtime.errors import MoraError
from mora_runtime.schema import Settings
from pydantic import Field, ValidationError, model_validator

Action = Literal["accept", "again", "edit", "adjust", "back", "stop"]


class ReviewRefused(MoraError):
    """A decision was refused: another reviewer was first, or a limit is reached."""

    code = "review_refused"


class Stopped(MoraError):
    """The session was stopped or no decision came in time; it can be resumed."""

    code = "review_stopped"


class StageDecision(Settings):
    """One decision about one candidate.

    Attributes:
        version: version of the session that the reviewer saw. The session refuses any other version, so that two
            reviewers cannot decide about the same candidate, and no reviewer about an unseen one.
        prompt: the new prompt for `edit`; the instruction for `adjust`.
    """

    version: int
    action: Action
    prompt: str | None = Field(default=None, max_length=4000)
    strength: float | None = Field(default=None, gt=0.0, le=1.0)
    reviewer: str = Field(default="reviewer", max_length=100)

    @model_validator(mode="after")
    def _has_prompt(self) -> StageDecision:
        if self.action in ("edit", "adjust") and not (self.prompt or "").strip():
            raise ValueError(f"{self.action} needs a prompt")
        return self


class Step(Settings):
    """A decision that led from one candidate of a stage to the next."""

    action: Literal["again", "edit", "adjust"]
    prompt: str | None = None
    strength: float | None = None


class StageResult(Settings):
    """A candidate of a stage, accepted or waiting for a decision."""

    stage: str = Field(pattern=r"^[a-z0-9][a-z0-9 _-]{0,63}$")  # it becomes part of file names
    kind: Literal["text", "frames"]
    prompt: str  # for kind `text`, the result itself
    attempt: int  # number of new seeds so far
    steps: tuple[Step, ...] = ()  # decisions that led to it from the stage's first candidate; empty for texts
    # name of the file with the frames, in the session's folder
    file: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,199}$")


class ReviewState(Settings):
    """The whole state of a session, stored in `state.json`."""

    version: int = 0
    status: Literal["working", "waiting", "decided", "stopped", "done"] = "working"
    accepted: tuple[StageResult, ...] = ()
    candidate: StageResult | None = None
    decision: StageDecision | None = None
    request: dict[str, Any] = Field(default_factory=dict)  # of the task, to resume it


def first_fault(error: ValidationError) -> str:
    """Return the message of the first error."""
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
