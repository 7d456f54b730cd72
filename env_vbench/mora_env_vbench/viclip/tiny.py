"""A ViCLIP of few parameters with made weights, in the published format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mora_env_vbench.clip.sizes import TextSizes, VisionSizes
from mora_env_vbench.clip.tokenizer import NUM_TOKENS
from mora_env_vbench.published_files import VICLIP
from mora_env_vbench.viclip.network import Viclip
from mora_env_vbench.weights.made_file import shapes_of, write_made
from mora_env_vbench.weights.recipe import Recipe

_EMBED = 32
_VISION = VisionSizes(image=56, patch=14, width=64, num_layers=2, embed=_EMBED)
_TEXT = TextSizes(length=32, num_words=NUM_TOKENS, width=64, num_layers=2, embed=_EMBED)


def tiny_viclip(folder: Path) -> dict[str, Any]:
    """Write the model; returns options that load it."""
    shapes = shapes_of(lambda: Viclip(_VISION, _TEXT, num_frames=8))
    write_made(folder / VICLIP.name, shapes, Recipe(seed=8), within="model")
    return {"weights": str(folder)}
