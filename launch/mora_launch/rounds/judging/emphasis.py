"""The emphases of the measured judge: each names measures of `measures.py` that count 1.5 times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Emphasis = Literal["even", "picture", "motion"]
STRESSED: Mapping[Emphasis, tuple[str, ...]] = {
    "even": (),
    "picture": ("detail", "colour"),
    "motion": ("order", "steadiness"),
}
