"""The diffusers schedulers as upstream constructs them: with defaults, without clipping of samples."""

from __future__ import annotations

from typing import Any, Literal

import diffusers

from mora_env_opensora.models import InputError
from mora_env_opensora.noise_schedule import PredictionType

SchedulerName = Literal["pndm", "euler_ancestral", "euler", "ddim", "ddpm", "dpm_solver"]

_CLASSES: dict[str, str] = {
    "pndm": "PNDMScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm_solver": "DPMSolverMultistepScheduler",
}
_OPTIONS: dict[str, dict[str, bool]] = {"ddim": {"clip_sample": False}, "ddpm": {"clip_sample": False}}


def least_steps(name: str) -> int:
    """PNDM starts with Runge-Kutta steps over its first four grid points."""
    return 4 if name == "pndm" else 1


def make_scheduler(name: str, prediction_type: PredictionType = "epsilon") -> Any:
    """Make a fresh scheduler. Use one per sample, because solvers store a history.

    Raises:
        InputError: the name is not in `SchedulerName`.
    """
    if name not in _CLASSES:
        raise InputError(f"scheduler: expected one of {', '.join(_CLASSES)}, got {name!r}")
    kind = getattr(diffusers, _CLASSES[name])
    return kind(prediction_type=prediction_type, **_OPTIONS.get(name, {}))
