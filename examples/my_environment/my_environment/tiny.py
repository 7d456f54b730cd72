"""Tiny models with random weights, for tests and first runs. The results are options that load them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from my_environment.stylist import Stylist
from my_environment.stylist_agent import WEIGHTS


def make_stylist(folder: Path) -> dict[str, Any]:
    """Write a stylist."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(Stylist().state_dict(), folder / WEIGHTS)
    return {"model": str(folder)}


def make_brightness(folder: Path) -> dict[str, Any]:
    """Write nothing, because the critic has no parameters; the options are those of the tests."""
    return {"wanted": 0.75}
