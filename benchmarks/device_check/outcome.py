"""What a part of the check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "failed", "skipped"]


@dataclass
class Outcome:
    """The entry of one part in the JSON file.

    Attributes:
        reason: why it failed or was skipped; empty if it is ok.
    """

    status: Status
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def fail(self, reason: str) -> None:
        """Mark the part as failed, with one more reason."""
        self.status = "failed"
        self.reason = f"{self.reason}; {reason}" if self.reason else reason


class CheckFailed(Exception):
    """A part found a fault; the message says what was expected and what came."""


class Skipped(Exception):
    """A part cannot run here; the message says why."""
