"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What one check of one kind found."""

    check: str
    ok: bool
    detail: str

    def line(self, kind: str) -> str:
        """The line for the terminal."""
        detail = " ".join(self.detail.split())
        return f"{kind}: {self.check}: " + (f"ok{f' ({detail})' if detail else ''}" if self.ok else f"FAILED {detail}")


class CheckFailed(Exception):
    """A kind does not do what is expected; the message says what was expected and what came."""


def expect(is_met: bool, message: str) -> None:
    """Fail the check with a message unless a condition is met."""
    if not is_met:
        raise CheckFailed(message)
