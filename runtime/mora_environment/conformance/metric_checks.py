"""Checks of a metric: its description, its scores, and its refusal of videos that have none."""

from __future__ import annotations

import math
from typing import Any

import torch
from mora_runtime.errors import BadArgument

from mora_environment.conformance.outcome import CheckFailed, expect
from mora_environment.conformance.subject import Subject
from mora_environment.promised_methods import promises_of


def metric_is_described(subject: Subject) -> str:
    """`describe` names the network, the dimensions, one version for each, and notes."""
    told = _called(subject, "describe", {})
    expect(isinstance(told.get("model"), str) and bool(told["model"]), "expected a text `model`")
    expect(bool(subject.dimensions), "expected `dimensions`, a list of at least one name")
    for name in ("dimensions", "versions", "notes"):
        is_list = isinstance(told.get(name), list) and all(isinstance(each, str) for each in told[name])
        expect(is_list, f"expected a list of texts `{name}`, got {told.get(name)!r}")
    num_versions, num_dimensions = len(told["versions"]), len(subject.dimensions)
    expect(num_versions == num_dimensions, f"expected one version a dimension, got {num_versions} of {num_dimensions}")
    return ", ".join(subject.dimensions)


def scores_are_complete(subject: Subject) -> str:
    """Every dimension has a finite `score` and a positive `weight`; details are float32 tensors or floats, finite."""
    shown = []
    for dimension in subject.dimensions:
        returned = _measured(subject, subject.measured(dimension))
        for name in ("score", "weight"):
            expect(isinstance(returned.get(name), float), f"{dimension}: expected a float `{name}`")
        for name, value in returned.items():
            expect(_is_finite_detail(value), f"{dimension}: {name}: expected finite floats or a float32 tensor")
        expect(returned["weight"] > 0, f"{dimension}: expected a positive weight, got {returned['weight']}")
        shown.append(f"{dimension} {returned['score']:.4g}")
    return ", ".join(shown)


def _is_finite_detail(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dtype == torch.float32 and bool(value.isfinite().all())
    return isinstance(value, float) and math.isfinite(value)


def scores_repeat(subject: Subject) -> str:
    """The same video has the same score after another one was measured, and the agent leaves its frames unchanged."""
    for dimension in subject.dimensions:
        arguments = subject.measured(dimension)
        before = arguments["frames"].clone()
        first = _measured(subject, arguments)["score"]
        expect(torch.equal(arguments["frames"], before), f"{dimension}: it changed the frames that it was given")
        _measured(subject, subject.measured(dimension, 1))
        again = _measured(subject, arguments)["score"]
        expect(again == first, f"{dimension}: expected the same score for the same video, got {first}, then {again}")
    return ""


def unusable_videos_are_refused(subject: Subject) -> str:
    """Frames of another layout or type, no frame at all, and an unknown dimension raise BadArgument."""
    right = subject.measured(subject.dimensions[0])
    frames = right["frames"]
    wrong: dict[str, dict[str, Any]] = {
        "an unknown dimension": {"dimension": "no_such_dimension"},
        "float frames": {"frames": frames.float()},
        "frames with the channels first": {"frames": frames.permute(0, 3, 1, 2).contiguous()},
        "one picture instead of frames": {"frames": frames[0]},
        "no frame": {"frames": frames[:0]},
    }
    for what, changes in wrong.items():
        try:
            _measured(subject, {**right, **changes})
        except BadArgument:
            continue
        raise CheckFailed(f"{what}: expected BadArgument, got an answer")
    return f"{len(wrong)} wrong calls"


def _measured(subject: Subject, arguments: dict[str, Any]) -> dict[str, Any]:
    return _called(subject, "measure", arguments)


def _called(subject: Subject, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    promise = next(each for each in promises_of(subject.interface) if each.method == method)
    return subject.call(promise, arguments)
