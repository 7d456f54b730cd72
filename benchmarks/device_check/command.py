"""The command line of the check."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.tiny_models import ensure_tiny_models
from mora_trainer.terminal import Console

from benchmarks.device_check.chain import write_published_chain, write_tiny_chain
from benchmarks.device_check.interpreters import Interpreters, find_interpreters
from benchmarks.device_check.outcome import Outcome
from benchmarks.device_check.plan import PARTS, Part
from benchmarks.device_check.planned_memory import PlannedMemory
from benchmarks.device_check.report import add_assumed_rates, memory_line, part_line, rate_lines
from benchmarks.device_check.request import Request
from benchmarks.device_check.runner import Runner

_NUM_ROWS = 4  # of a modulation embedding, as the plan counts them
_NOTHING_TO_CHECK = 2
_LOG_LENGTH = 4000
_NUM_DRY_PARTS = 2  # at a time
_DRY_PATIENCE = 4.0  # factor on the deadlines, which are for a GPU and a machine of its own
_LEAST_WAIT_S = 1.0  # for the plan, which ends before the parts do


def main() -> int:
    """Run the check; returns its exit code."""
    arguments = _arguments()
    device = "cpu" if arguments.dry else arguments.device
    problem = None if arguments.dry else _why_not(device)
    if problem is not None:
        print(f"device_check: {problem}; give --dry to run every part at tiny sizes on the CPU", file=sys.stderr)
        return _NOTHING_TO_CHECK
    with tempfile.TemporaryDirectory(prefix="mora-device-check-") as folder:
        check = DeviceCheck(Path(folder), device, is_dry=arguments.dry)
        outcomes = check.run([part for part in PARTS if part.name in arguments.part], arguments.json)
    return 1 if any(outcome.status == "failed" for outcome in outcomes.values()) else 0


class DeviceCheck:
    """One check of one device.

    Args:
        folder: for all files of the check, the logs of its parts among them.
    """

    def __init__(self, folder: Path, device: str, *, is_dry: bool) -> None:
        self._folder = folder
        self._device = device
        self._is_dry = is_dry
        self._interpreters: Interpreters = find_interpreters(folder)
        self._tiny = write_tiny_chain(folder / "tiny.yaml", self._interpreters, device)
        planned = self._tiny if is_dry else write_published_chain(folder / "published.yaml", self._interpreters)
        self._config: TrainConfig = load_config(planned, ["training.micro_batch_size=1"])
        if is_dry:  # parts would take the published sizes for models that are not there yet
            ensure_tiny_models(self._config, Console(stderr=True))

    def run(self, parts: Sequence[Part], file: Path | None) -> dict[str, Outcome]:
        """Run parts, and print and write what each found as soon as it has ended."""
        began_s = time.monotonic()
        runner = Runner(self._folder, _DRY_PATIENCE if self._is_dry else 1.0)
        planned = PlannedMemory(self._config) if any(part.measures_memory for part in parts) else None
        outcomes: dict[str, Outcome] = {}
        # on a GPU parts would disturb each other; a dry run measures nothing
        with ThreadPoolExecutor(_NUM_DRY_PARTS if self._is_dry else 1) as pool:
            ended = [pool.submit(runner.run, part, self._python(part), self._request(part)) for part in parts]
            for part, each in zip(parts, ended, strict=True):
                outcomes[part.name] = each.result()
                add_assumed_rates(outcomes[part.name])
                self._show(part, outcomes[part.name])
                self._write(file, outcomes, began_s)
        if planned is not None:
            self._compare(parts, outcomes, planned, max(_LEAST_WAIT_S, runner.remaining_s()))
            planned.close()
            self._write(file, outcomes, began_s)
        return outcomes

    def _python(self, part: Part) -> Path:
        return self._interpreters.paths[part.place]

    def _request(self, part: Part) -> Request:
        agent = self._config.agents.get(part.place)
        return Request(
            part=part.name,
            is_dry=self._is_dry,
            device=self._device,
            folder=str(self._folder / part.name),
            chain=str(self._tiny),
            options={} if agent is None else agent.options,
            work={"num_rows": _NUM_ROWS},
            kernels={} if agent is None else {
                "attention": list(agent.attention), "tf32": agent.tf32, "cudnn_benchmark": True,
            },
        )  # fmt: skip

    def _compare(
        self, parts: Sequence[Part], outcomes: dict[str, Outcome], planned: PlannedMemory, deadline_s: float
    ) -> None:
        """Compare the memory that parts measured with the plan."""
        for part in filter(lambda each: each.measures_memory, parts):
            outcome = outcomes[part.name]
            before = outcome.status
            planned.compare(part.place, outcome, deadline_s)
            line = memory_line(part.name, outcome.figures)
            if line is not None:
                print(line, flush=True)
            if outcome.status != before:
                print(part_line(part, outcome), flush=True)

    def _show(self, part: Part, outcome: Outcome) -> None:
        print(part_line(part, outcome), flush=True)
        for line in rate_lines(outcome.figures):
            print(f"  {line}", flush=True)
        log = self._folder / part.name / "log"
        if outcome.status == "failed" and log.exists():
            print(log.read_text(encoding="utf-8", errors="replace")[-_LOG_LENGTH:], file=sys.stderr, flush=True)

    def _write(self, file: Path | None, outcomes: dict[str, Outcome], began_s: float) -> None:
        """Write what is known, after every part, so that an interrupted check leaves its figures."""
        if file is None:
            return
        content: dict[str, Any] = {
            "device": self._device,
            "dry": self._is_dry,
            "one_interpreter": self._interpreters.plays_all,
            "seconds": round(time.monotonic() - began_s, 2),
            "parts": {name: outcome.as_json() for name, outcome in outcomes.items()},
        }
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _why_not(device: str) -> str | None:
    """Why there is no such GPU here; None if there is one."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device"
    index = torch.device(device).index or 0
    num_devices = torch.cuda.device_count()
    return None if index < num_devices else f"expected --device below cuda:{num_devices}, got {device}"


def _arguments() -> argparse.Namespace:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.device_check", description="Check a new GPU node.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what every part found to this file")
    parser.add_argument("--dry", action="store_true", help="run every part at tiny sizes on the CPU")
    parser.add_argument(
        "--part", nargs="+", choices=names, default=names, metavar="NAME", help=f"only these: {', '.join(names)}"
    )
    parser.add_argument("--device", default="cuda:0", help="default: cuda:0")
    return parser.parse_args()
