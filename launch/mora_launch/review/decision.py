"""What a reviewer may say about a stage."""

from __future__ import annotations

from typing import Any, Literal

from mora_runtime.errors import MoraError
from mora_runtime.schema import Settings
from pydantic import Field, ValidationError, model_validator

Action = Literal["accept", "again", "edit", "adjust", "back", "stop"]


class ReviewRefused(MoraError):
    """A decision that does not fit: another reviewer was first, or a limit is reached."""

    code = "review_refused"


class Stopped(MoraError):
    """The session was stopped, or nobody decided in time; it can be resumed."""

    code = "review_stopped"


class StageDecision(Settings):
    """One decision about one candidate.

    Attributes:
        version: of the session that the reviewer looked at; any other is refused, so that two reviewers cannot decide
            about the same candidate, nor one about a candidate that he has not seen.
        prompt: the new one, for `edit`; the instruction, for `adjust`.
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
    """A decision that made another candidate of a stage's latest one."""

    action: Literal["again", "edit", "adjust"]
    prompt: str | None = None
    strength: float | None = None


class StageResult(Settings):
    """What was made for a stage and waits for, or has, a reviewer's consent."""

    stage: str = Field(pattern=r"^[a-z0-9][a-z0-9 _-]{0,63}$")  # it becomes part of file names
    kind: Literal["text", "frames"]
    prompt: str  # of kind text: the result itself
    attempt: int  # new seeds taken so far
    steps: tuple[Step, ...] = ()  # what led to it from the stage's first candidate; no text has any
    # of frames, in the session's folder; a plain name
    file: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,199}$")


class ReviewState(Settings):
    """Everything of a session; `state.json`."""

    version: int = 0
    status: Literal["working", "waiting", "decided", "stopped", "done"] = "working"
    accepted: tuple[StageResult, ...] = ()
    candidate: StageResult | None = None
    decision: StageDecision | None = None
    request: dict[str, Any] = Field(default_factory=dict)  # what the task was asked for, to resume it


def first_fault(error: ValidationError) -> str:
    """What is wrong with a decision, in the words of its first fault."""
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
