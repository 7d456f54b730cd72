"""Trainers that are no part of Mora, one file each; `trainer()` makes it."""

from __future__ import annotations

ONE_PROCESS = "one_process"
MODULES = {ONE_PROCESS: None, "dist_autograd": None, "ray": "ray"}  # name -> top-level module that it needs


def path_of(name: str) -> str:
    """Module of a trainer."""
    return f"{__name__}.{name}_trainer"
