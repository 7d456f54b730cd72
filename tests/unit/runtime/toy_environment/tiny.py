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


def make_critic(folder: Path) -> dict[str, Any]:
    """It has no weights, only an option."""
    return {"brightness": 0.25}


def make_metric(folder: Path) -> dict[str, Any]:
    """It has no weights, only an option."""
    return {"scale": 0.5}


def tell_nothing(folder: Path) -> dict[str, Any]:
    """Write the weights, and do not tell the options."""
    make_tiny(folder)
    return {}


def fail(folder: Path) -> dict[str, Any]:
    """Make nothing."""
    raise OSError("no room for the models")


def make_other_options(folder: Path) -> dict[str, Any]:
    """Tell an option that does not exist."""
    return {**make_tiny(folder), "sides": 3}


def make_half(folder: Path) -> dict[str, Any]:
    """Leave out a weight."""
    folder.mkdir(parents=True)
    save_file({"picture": Brush().picture.data}, folder / "brush.safetensors")
    return {"weights": str(folder / "brush.safetensors"), "side": 4}


def make_colours(folder: Path, palette: Path) -> None:
    """Write the palette's text next to the weights."""
    make_tiny(folder)
    (folder / "palette.txt").write_text(palette.read_text())
