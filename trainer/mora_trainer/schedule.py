"""Learning-rate schedules: a factor in [0, 1] per step, applied to every role's base rate."""

from __future__ import annotations

import math
from typing import Literal


def schedule_factor(step: int, *, kind: Literal["constant", "cosine"], num_steps: int, num_warmup_steps: int) -> float:
    """Factor of `step` (0 = first): linear warm-up from 1/num_warmup_steps, then constant, or cosine down to 0."""
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    if kind == "constant":
        return 1.0
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
