"""A job of tiny models on the device: four steps with a death in the third, then two more by `--resume`.

The video server kills itself in a backward pass. The job then continues from a checkpoint, with new processes on the
same device. At the end, the device must have as much free memory as at the start.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mora_runtime.process.faults import happened

from benchmarks.device_check.device_memory import FreeMemory
from benchmarks.device_check.figures import Figures
from benchmarks.device_check.outcome import CheckFailed
from benchmarks.device_check.request import Request
from benchmarks.device_check.source_folders import ROOT

# A backward pass of the tiny video model takes 250 saved tensors, and a step has two: the death is in the third step.
# The first checkpoint is complete by then; the second may still be being written.
_FAULT = "video.0:mid_backward:1300"
_CONTINUED = re.compile(r"going on from step [12] as generation 2")
_NUM_STEPS, _NUM_RESUMED_STEPS = 4, 2
_CHANGES = ("training.checkpoint_every=1", f"faults=[{_FAULT}]")
_SMALL = ("training.batch_size=2", "training.micro_batch_size=1", "data.num_clips=2", "samples.enabled=false")
_NUM_LAST_LINES = 8


def run(request: Request, figures: Figures) -> None:
    """Train, recover, resume, and look at what is left."""
    memory = FreeMemory(request.torch_device)
    directory = request.path / "run"
    changes = (*_CHANGES, *(_SMALL if request.is_dry else ()))
    run_s, said = _train(request.chain, directory, [*changes, f"training.num_steps={_NUM_STEPS}"])
    figures.add(run_s=run_s, deaths=happened(directory))
    if figures["deaths"] != [_FAULT] or _CONTINUED.search(said) is None:
        raise CheckFailed(
            f"expected the death {_FAULT} and then `{_CONTINUED.pattern}`, got {figures['deaths']} and: {_end(said)}"
        )
    _check_metrics(directory, _NUM_STEPS, figures)
    total = _NUM_STEPS + _NUM_RESUMED_STEPS
    resumed_s, _ = _train(request.chain, directory, [*changes, f"training.num_steps={total}"], "--resume")
    figures.add(resumed_run_s=resumed_s)
    _check_metrics(directory, total, figures)
    missing, waited_s = memory.missing()
    figures.add(memory_missing_nbytes=missing, memory_back_after_s=waited_s)
    if missing > memory.slack_nbytes:
        raise CheckFailed(f"expected the device's memory back, {missing} bytes are missing after {waited_s} s")


def _train(chain: str, directory: Path, changes: Sequence[str], *options: str) -> tuple[float, str]:
    """Run `mora train` to its end; returns its seconds and its output."""
    settings = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "mora_launch", "train", chain, "--run", str(directory), *settings, *options]
    began_s = time.monotonic()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        check=False,
    )  # fmt: skip
    print(done.stdout, flush=True)
    if done.returncode != 0:
        shown = " ".join(["mora train", *options])
        raise CheckFailed(f"`{shown}` ended with {done.returncode}: {_end(done.stdout)}")
    return round(time.monotonic() - began_s, 2), done.stdout


def _end(said: str) -> str:
    return " | ".join(line.strip() for line in said.strip().splitlines()[-_NUM_LAST_LINES:])


def _check_metrics(directory: Path, num_steps: int, figures: Figures) -> None:
    """Every step once, with a finite loss."""
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps: list[dict[str, Any]] = [json.loads(line) for line in lines]
    figures.add(losses=[step["loss"] for step in steps], step_s=[step["step_s"] for step in steps])
    if [step["step"] for step in steps] != list(range(num_steps)):
        raise CheckFailed(f"expected the steps 0 to {num_steps - 1} in metrics.jsonl, got {[s['step'] for s in steps]}")
    if not all(isinstance(loss, float) and math.isfinite(loss) for loss in figures["losses"]):
        raise CheckFailed(f"expected finite losses, got {figures['losses']}")
