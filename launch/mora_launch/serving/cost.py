"""The cost of a call: frames x pixels x denoising steps, in millions. It ignores which model does the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mora_launch.config.capability import PICTURES

_PER_UNIT = 1e-6


def call_cost(capability: str, about: Mapping[str, Any], shared: Mapping[str, Any] | None = None) -> float:
    """Return the megapixel-steps of one sample of a capability.

    Args:
        capability: a picture has one frame, even if the agent also makes clips.
        about: the answer of the agent's method `describe`.
        shared: arguments of the call that may replace the agent's own size and steps.
    """
    given = {name: value for name, value in (shared or {}).items() if value is not None}
    sizes = [{**about, **given}.get(name, 1) for name in ("height", "width", "num_inference_steps")]
    cost = _PER_UNIT * (1 if capability in PICTURES else about.get("num_frames", 1))
    for size in sizes:
        cost *= size
    return cost
