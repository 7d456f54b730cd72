"""Gradients of the chain over servers against the same chain in one process, both on the device, in float32.

On the CPU they are the same bits. On a GPU some sums have no fixed order, so the largest relative difference is
bounded. TF32 is off in both, because it would round the inputs to three digits.
"""

from __future__ import annotations

import os
from pathlib import Path

from mora_launch.config.train_config import load_config

from benchmarks.device_check.figures import Figures
from benchmarks.device_check.outcome import CheckFailed
from benchmarks.device_check.request import Request
from benchmarks.parity import measure

_MAX_REL_DIFF = 1e-3
_CHANGES = (
    "training.batch_size=2", "training.micro_batch_size=1", "data.num_clips=2",
    "agents.image.options.dtype=float32", "agents.image.tf32=none",
    "agents.video.options.dtype=float32", "agents.video.tf32=none",
)  # fmt: skip
_DETERMINISTIC = {"NVIDIA_TF32_OVERRIDE": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # for all processes


def run(request: Request, figures: Figures) -> None:
    """Compare every gradient."""
    if request.torch_device.type == "cuda":
        os.environ.update(_DETERMINISTIC)
    found = measure(load_config(Path(request.chain), _CHANGES), request.path / "run")
    figures.add(**found)
    if found["only_on_one_side"]:
        raise CheckFailed(f"expected the same gradients on both sides, got {found['only_on_one_side']} on one only")
    if found["num_with_nonzero_gradient"] == 0:
        raise CheckFailed("expected gradients, all are zero")
    if request.torch_device.type == "cpu" and not found["bit_identical"]:
        raise CheckFailed(f"expected the same bits on the CPU, {found['worst']} differs")
    if not found["max_rel_grad_diff"] < _MAX_REL_DIFF:
        raise CheckFailed(f"expected less than {_MAX_REL_DIFF} relative difference, got {found['max_rel_grad_diff']}")
