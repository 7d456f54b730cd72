"""Makers of the toy environment's models."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from toy_environment.agent import Brush


def make_tiny(folder: Path) -> dict[str, Any]:
    """Write the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(Brush().state_dict(), folder / "brush.safetensors")
    return {"weights": str(folder / "brush.safetensors"), "side": 4}


def make_colours(folder: Path, palette: Path) -> None:
    """Write the palette's text next to the weights."""
    make_tiny(folder)
    (folder / "palette.txt").write_text(palette.read_text())
