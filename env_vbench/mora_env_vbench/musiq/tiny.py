"""A MUSIQ of some hundred thousand parameters with made weights, in the published format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mora_env_vbench.musiq.network import Musiq
from mora_env_vbench.musiq.sizes import MusiqSizes
from mora_env_vbench.published_files import MUSIQ
from mora_env_vbench.weights.made_file import shapes_of, write_made
from mora_env_vbench.weights.recipe import Recipe

_SIZES = MusiqSizes(width=64, mlp=64, num_heads=1, num_blocks=2, stem=32, block=32)
_HEAD_SCALES = {"head.weight": (0.0, 1.0), "head.bias": (50.0, 0.02)}  # scores are about 50


def tiny_musiq(folder: Path) -> dict[str, Any]:
    """Write the model; returns options that load it."""
    write_made(folder / MUSIQ.name, shapes_of(lambda: Musiq(_SIZES)), Recipe(seed=7, special=_HEAD_SCALES))
    return {"weights": str(folder)}
