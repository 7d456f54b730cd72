"""A DINO of a few thousand parameters with made weights, in the published format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mora_env_vbench.dino.network import Dino
from mora_env_vbench.dino.sizes import DinoSizes
from mora_env_vbench.published_files import DINO
from mora_env_vbench.weights.made_file import shapes_of, write_made
from mora_env_vbench.weights.recipe import Recipe

_SIZES = DinoSizes(patch=16, grid=14, width=64, num_blocks=2, num_heads=1)


def tiny_dino(folder: Path) -> dict[str, Any]:
    """Write the model; returns options that load it."""
    write_made(folder / DINO.name, shapes_of(lambda: Dino(_SIZES)), Recipe(seed=5))
    return {"weights": str(folder)}
