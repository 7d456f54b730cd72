"""CLIP models of few parameters with made weights, in the published format apart from TorchScript's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mora_env_vbench.clip.network import Clip
from mora_env_vbench.clip.sizes import TextSizes, VisionSizes
from mora_env_vbench.clip.tokenizer import NUM_TOKENS
from mora_env_vbench.published_files import AESTHETIC_HEAD, CLIP_B, CLIP_L
from mora_env_vbench.weights.made_file import shapes_of, write_made
from mora_env_vbench.weights.recipe import Recipe

_EMBED = 32
_VISION = VisionSizes(image=56, patch=14, width=64, num_layers=2, embed=_EMBED)
_TEXT = TextSizes(length=77, num_words=NUM_TOKENS, width=64, num_layers=2, embed=_EMBED)
_HEAD_SHAPES = {"weight": (1, _EMBED), "bias": (1,)}
_HEAD_SCALES = {"weight": (0.0, 1.0), "bias": (5.0, 0.02)}


def tiny_clip(folder: Path) -> dict[str, Any]:
    """Write ViT-B-32.pt; returns options that load it."""
    write_made(folder / CLIP_B.name, shapes_of(lambda: Clip(_VISION, _TEXT)), Recipe(seed=1, half=True))
    return {"weights": str(folder)}


def tiny_aesthetic(folder: Path) -> dict[str, Any]:
    """Write ViT-L-14.pt and the head; returns options that load them."""
    write_made(folder / CLIP_L.name, shapes_of(lambda: Clip(_VISION, _TEXT)), Recipe(seed=2, half=True))
    write_made(folder / AESTHETIC_HEAD.name, _HEAD_SHAPES, Recipe(seed=6, special=_HEAD_SCALES))
    return {"weights": str(folder)}
