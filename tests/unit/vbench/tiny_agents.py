"""Agents of tiny made models, one of each kind a process, and the clips that tests measure."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mora_env_vbench.__main__ import KINDS
from mora_env_vbench.weights.recipe import made_clip
from mora_environment.kind import imported
from torch import Tensor


@cache
def tiny_agent(kind: str) -> Any:
    """The agent with its default options; it has read its files when this returns."""
    with tempfile.TemporaryDirectory(prefix="mora-tiny-") as folder:
        return built(kind, imported(KINDS[kind].tiny, owner=kind)(Path(folder)))


def built(kind: str, options: dict[str, Any]) -> Any:
    """An agent with some options on the CPU."""
    checked = KINDS[kind].options.model_validate(options)
    return imported(KINDS[kind].build, owner=kind)(checked, torch.device("cpu"))


def measured(kind: str, dimension: str, frames: Tensor, *, fps: float = 8.0, prompt: str = "a cat") -> dict[str, Any]:
    """The answer of `measure`."""
    found: dict[str, Any] = tiny_agent(kind).measure(dimension, frames, fps, prompt, "")
    return found


def clip(num_frames: int = 6, height: int = 128, width: int = 136, *, seed: int = 5) -> Tensor:
    """Moving cells with noise, bytes (F, H, W, 3)."""
    return made_clip(seed=seed, frames=num_frames, height=height, width=width)
