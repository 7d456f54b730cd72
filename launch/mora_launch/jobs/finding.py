"""The result of one check of `mora doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The result of one check. `fix` is empty if there is no problem."""

    what: str
    fix: str = ""
