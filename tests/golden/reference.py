"""Reads reference tensors of Open-Sora-Plan v1.2: the small ones from `data/`, the rest from `MORA_GOLDENS`.

Without `MORA_GOLDENS` they are read from `shared/goldens` next to the repository; tests without their tensors skip
and say so.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

_HERE = Path(__file__).parent
TOLERANCE = 5e-5


@dataclass(frozen=True)
class Case:
    """One case of a reference file."""

    name: str
    args: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Reference:
    """A reference file: the settings that made it, and its cases."""

    meta: dict[str, Any]
    cases: list[Case]

    def weights(self, key: str = "weights") -> dict[str, Tensor]:
        """float32 weights; stored as bfloat16, exactly."""
        name = self.meta[key].split()[0]
        return {k: v.float() for k, v in load_file(find_file(name)).items()}

    def case(self, name: str) -> Case:
        return next(case for case in self.cases if case.name == name)


def find_file(name: str) -> Path:
    shared = Path(os.environ.get("MORA_GOLDENS") or _HERE.parents[2] / "shared" / "goldens")
    for folder in (_HERE / "data", shared):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"reference file {name} is neither in tests/golden/data nor in MORA_GOLDENS={shared}")


def read_meta(name: str) -> dict[str, Any]:
    return json.loads(find_file(f"{name}.json").read_text(encoding="utf-8"))


def read(name: str) -> Reference:
    meta = read_meta(name)
    tensors = load_file(find_file(f"{name}.data.safetensors"))

    def of(case: str, kind: str) -> dict[str, Tensor]:
        prefix = f"{case}/{kind}/"
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    cases = [
        Case(entry["name"], entry["args"], of(entry["name"], "inputs"), of(entry["name"], "outputs"))
        for entry in meta["cases"]
    ]
    return Reference(meta, cases)


def assert_equal_to(reference: Tensor, got: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """|difference| <= tolerance * max(1, max |reference|), shapes equal."""
    assert got.shape == reference.shape, f"{what}: shape {tuple(got.shape)}, reference {tuple(reference.shape)}"
    difference = (got.detach().float() - reference.float()).abs().max().item()
    bound = tolerance * max(1.0, reference.float().abs().max().item())
    assert difference <= bound, f"{what}: differs by {difference:.3e}, allowed {bound:.3e}"


def case_names(name: str) -> list[str]:
    """Cases for parametrize; a missing file gives one case, which skips."""
    try:
        return [case["name"] for case in read_meta(name)["cases"]]
    except pytest.skip.Exception:
        return ["absent"]


torch.set_num_threads(1)
