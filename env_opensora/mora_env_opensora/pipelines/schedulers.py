"""The diffusers schedulers as upstream constructs them: defaults, without clipping of samples."""

from __future__ import annotations

from typing import Any, Literal, get_args

import diffusers

from mora_env_opensora.models import InputError
from mora_env_opensora.noise_schedule import PredictionType

SchedulerName = Literal["PNDM", "EulerAncestralDiscrete", "EulerDiscrete", "DDIM", "DDPM", "DPMSolverMultistep"]

_OPTIONS: dict[str, dict[str, bool]] = {"DDIM": {"clip_sample": False}, "DDPM": {"clip_sample": False}}


def make_scheduler(name: str, prediction_type: PredictionType = "epsilon") -> Any:
    """A fresh scheduler; one serves one sample, since solvers keep a history.

    Raises:
        InputError: the name is not of `SchedulerName`.
    """
    if name not in get_args(SchedulerName):
        raise InputError(f"scheduler: expected one of {', '.join(get_args(SchedulerName))}, got {name!r}")
    kind = getattr(diffusers, f"{name}Scheduler")
    return kind(prediction_type=prediction_type, **_OPTIONS.get(name, {}))
