"""Turns of all contestants, interleaved, so that the machine's drift hits all of them; then their weights."""

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
        widths: of the stages.
        num_rounds: turns of each contestant, of which the first is warm-up.
        steps_by_width: in a turn.
    """

    widths: tuple[int, ...] = (256, 2048)
    num_rounds: int = 8
    steps_by_width: Mapping[int, int] = field(default_factory=lambda: {256: 40, 2048: 3})


class Contestant:
    """A trainer in a process of its own, which is stopped, with all it started, while others have their turns."""

    def __init__(self, name: str, folder: Path) -> None:
        # the same settings of the mathematics library for everybody, or no two would agree to the bit
        variables = ONE_THREAD | child_variables(1, "cpu")
        self.process = TurnProcess(name, "benchmarks.mlp.trainer", [name], folder, variables)
        self._weights = folder / f"{name}.safetensors"

    def begin(self, width: int) -> None:
        """Fresh stages."""
        self._ask(do="begin", width=width)

    def steps(self, count: int) -> float:
        """Milliseconds of a step."""
        step_ms: float = self._ask(do="steps", count=count)["step_ms"]
        return step_ms

    def weights(self) -> dict[str, torch.Tensor]:
        """Of both stages."""
        self._ask(do="weights", path=str(self._weights))
        return load_file(self._weights)

    def _ask(self, **command: Any) -> dict[str, Any]:
        answer = self.process.ask(command)
        if "error" in answer:
            raise TurnFailed(f"{self.process.word}: {answer['error']}")
        return answer


@dataclass
class Result:
    """Of one width."""

    width: int
    times_ms: dict[str, list[float]]
    largest_difference: dict[str, float]  # of any weight from one process's, after 20 steps

    def median_ms(self, name: str) -> float:
        """Of a step."""
        return statistics.median(self.times_ms[name])

    def ratio(self, name: str) -> float:
        """To one process: the median of the ratios of each round."""
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
    """Largest absolute difference; infinite where names differ."""
    if found.keys() != reference.keys():
        return float("inf")
    return max(float((found[name] - reference[name]).abs().max()) for name in reference)
