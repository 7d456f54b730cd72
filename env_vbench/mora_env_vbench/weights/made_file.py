"""Files of made weights, in the layouts of the published ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mora_env_vbench.weights.recipe import Recipe


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors; nothing is allocated."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


def write_made(
    path: Path, shapes: Mapping[str, Sequence[int]], recipe: Recipe, *, prefix: str = "", within: str = ""
) -> None:
    """Write weights of a recipe; the same recipe writes the same weights.

    Args:
        shapes: by the network's names.
        prefix: put before each name, such as `module.`.
        within: key of a dictionary around the weights, such as `state_dict`; empty = none.
    """
    made = recipe.made(shapes)
    if recipe.half:
        made = {name: tensor.half() for name, tensor in made.items()}
    named: dict[str, Any] = {prefix + name: tensor for name, tensor in made.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({within: named} if within else named, path)
