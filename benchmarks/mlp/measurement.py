"""Interleaves the turns of all contestants, so that the machine's drift affects all of them; then compares weights."""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mora_launch.jobs.servers import child_variables
from safetensors.torch import load_file

from benchmarks.ipc.lifetime import ONE_THREAD
from benchmarks.ipc.turn_process import TurnFailed, TurnProcess
from benchmarks.mlp.trainers import MODULES, NEEDS, ONE_PROCESS

_NUM_COMPARED_STEPS = 20


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Args:
        widths: of the stages, measured one after the other.
        num_rounds: turns of each contestant, of which the first is warm-up.
        steps_by_width: number of steps in a turn.
    """

    widths: tuple[int, ...] = (256, 2048)
    num_rounds: int = 8
    steps_by_width: Mapping[int, int] = field(default_factory=lambda: {256: 40, 2048: 3})


class Contestant:
    """A trainer in its own process, which is stopped, with all it started, while others have their turns."""

    def __init__(self, name: str, folder: Path) -> None:
        # all contestants need the same settings of the mathematics library to be bit-identical
        variables = ONE_THREAD | child_variables(1, "cpu")
        self.process = TurnProcess(name, "benchmarks.mlp.trainer", [name], folder, variables)
        self._weights = folder / f"{name}.safetensors"

    def begin(self, width: int) -> None:
        """Fresh stages."""
        self._ask(do="begin", width=width)

    def steps(self, count: int) -> float:
        """Take `count` steps; returns milliseconds per step."""
        step_ms: float = self._ask(do="steps", count=count)["step_ms"]
        return step_ms

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights of both stages."""
        self._ask(do="weights", path=str(self._weights))
        return load_file(self._weights)

    def _ask(self, **command: Any) -> dict[str, Any]:
        answer = self.process.ask(command)
        if "error" in answer:
            raise TurnFailed(f"{self.process.word}: {answer['error']}")
        return answer


@dataclass
class Result:
    """Measurements of one width."""

    width: int
    times_ms: dict[str, list[float]]
    largest_difference: dict[str, float]  # between any weight and that of one process, after 20 steps

    def median_ms(self, name: str) -> float:
        """Median milliseconds of a step."""
        return statistics.median(self.times_ms[name])

    def ratio(self, name: str) -> float:
        """Step time relative to one process: the median of the ratios of all rounds."""
        pairs = zip(self.times_ms[name], self.times_ms[ONE_PROCESS], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def measure(plan: Plan) -> tuple[list[Result], list[str]]:
    """Results by width, and the names of contestants that are not installed."""
    absent = [name for name, needs in NEEDS.items() if importlib.util.find_spec(needs) is None]
    playing = [name for name in MODULES if name not in absent]
    with tempfile.TemporaryDirectory(prefix="mora-mlp-") as folder, _contestants(Path(folder), playing) as contestants:
        results = [_measure_width(contestants, width, plan) for width in plan.widths]
    return results, absent


@contextlib.contextmanager
def _contestants(folder: Path, playing: list[str]) -> Iterator[dict[str, Contestant]]:
    contestants: dict[str, Contestant] = {}
    with contextlib.ExitStack() as stack:
        for name in playing:
            contestants[name] = Contestant(name, folder)
            stack.callback(contestants[name].process.close)
        for contestant in contestants.values():
            contestant.process.first_answer()
        yield contestants


def _measure_width(contestants: dict[str, Contestant], width: int, plan: Plan) -> Result:
    weights = {}
    for name, contestant in contestants.items():
        contestant.begin(width)
        contestant.steps(_NUM_COMPARED_STEPS)
        weights[name] = contestant.weights()
    times_ms: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(plan.num_rounds):
        for name, contestant in contestants.items():
            step_ms = contestant.steps(plan.steps_by_width.get(width, 10))
            if number > 0:
                times_ms[name].append(step_ms)
    reference = weights.pop(ONE_PROCESS)
    return Result(width, times_ms, {name: _difference(found, reference) for name, found in weights.items()})


def _difference(found: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor]) -> float:
    """Largest absolute difference; infinite if names differ."""
    if found.keys() != reference.keys():
        return float("inf")
    return max(float((found[name] - reference[name]).abs().max()) for name in reference)
