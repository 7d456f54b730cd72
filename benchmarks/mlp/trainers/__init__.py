"""Ways to train both stages: `trainer(name)` of a module below makes one, by its name in the report."""

from __future__ import annotations

ONE_PROCESS = "one_process"
OURS = ("ours", "ours_fused", "ours_inputs_first", "ours_two_servers")
MODULES = {
    ONE_PROCESS: "one_process_trainer",
    "dist_autograd": "dist_autograd_trainer",
    "ray": "ray_trainer",
    **dict.fromkeys(OURS, "mora_trainers"),
}
NEEDS = {"ray": "ray"}  # name -> top-level module that may not be installed


def path_of(name: str) -> str:
    """Module of a trainer."""
    return f"{__name__}.{MODULES[name]}"
