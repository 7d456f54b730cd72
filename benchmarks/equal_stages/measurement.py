"""Steps of a chain of three equal stages: their time, compared with the critical path of the same steps."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_environment.interface import Interface, Port
from mora_runtime import SpawnedServer, spawn
from mora_trainer.chain.micro_batch import MicroBatch, MicroBatchResult
from mora_trainer.chain.remote_chain import RemoteChain
from mora_trainer.chain.stage import Stage
from mora_trainer.chain.stopwatch import Stopwatch
from mora_trainer.settings import PipelineSettings

from benchmarks.equal_stages.server import BACKWARD_FACTOR
from benchmarks.least_time import least_time_s

_IMAGES = {"images": Port(modality="images")}
CHAIN = {
    "first": Interface(gives=_IMAGES),
    "middle": Interface(takes=_IMAGES, gives=_IMAGES),
    "last": Interface(takes=_IMAGES, has_loss=True),
}
TARGET = 0.9  # critical path / step
_LEAST_TARGETED_S = 0.01  # a target for shorter forwards would be one for the machine's timers
_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Args:
        forwards_s: times of a forward, measured one after the other.
        num_micro_batches: of a step.
        num_rounds: steps of each kind, of which the first is warm-up.
    """

    forwards_s: tuple[float, ...] = (0.002, 0.01, 0.05)
    num_micro_batches: int = 8
    num_rounds: int = 8


def measure(plan: Plan) -> dict[str, Any]:
    """Return the figures as JSON, by time of a forward; those of 10 ms and more have a target."""
    with _servers() as servers:
        sizes = [_measure(servers, forward_s, plan) for forward_s in plan.forwards_s]
    return {
        "num_stages": len(CHAIN),
        "microbatches": plan.num_micro_batches,
        "max_in_flight": PipelineSettings().in_flight(len(CHAIN)),
        "num_rounds": plan.num_rounds,
        "sizes": sizes,
    }


def meets_targets(figures: Mapping[str, Any]) -> bool:
    """True if every size that has a target meets it."""
    return all(size["target"]["met"] for size in figures["sizes"] if "target" in size)


@contextlib.contextmanager
def _servers() -> Iterator[dict[str, SpawnedServer]]:
    script = Path(__file__).with_name("server.py")
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(spawn(sys.executable, script)) for name in CHAIN}


def _measure(servers: dict[str, SpawnedServer], forward_s: float, plan: Plan) -> dict[str, Any]:
    for name, server in servers.items():
        server.call(name, "begin", forward_s=forward_s)
    overlapped, one_by_one = PipelineSettings(), PipelineSettings(max_in_flight=1)
    steps_s: dict[PipelineSettings, list[float]] = {overlapped: [], one_by_one: []}
    least_s: list[float] = []
    for number in range(plan.num_rounds):
        for pipeline, spent_s in steps_s.items():
            results, step_s = _step(servers, pipeline, plan.num_micro_batches)
            if number == 0:
                continue
            spent_s.append(step_s)
            if pipeline is overlapped:
                least_s.append(least_time_s(results, list(CHAIN), overlapped.in_flight(len(CHAIN))))
    fractions = [least / spent for least, spent in zip(least_s, steps_s[overlapped], strict=True)]
    step_s, sequential_s = (statistics.median(steps_s[pipeline]) for pipeline in (overlapped, one_by_one))
    fraction = statistics.median(fractions)
    entry: dict[str, Any] = {
        "forward_s": forward_s,
        "backward_s": BACKWARD_FACTOR * forward_s,
        "step_s": step_s,
        "critical_path_s": statistics.median(least_s),
        "fraction_of_ideal": fraction,
        "sequential_s": sequential_s,
        "speedup": sequential_s / step_s,
    }
    if forward_s >= _LEAST_TARGETED_S:
        entry["target"] = {"key": "fraction_of_ideal", "at_least": TARGET, "met": fraction >= TARGET}
    return entry


def _step(
    servers: dict[str, SpawnedServer], pipeline: PipelineSettings, num_micro_batches: int
) -> tuple[list[MicroBatchResult], float]:
    """Run the micro-batches of one step; return their results and the time of all."""
    stages = [_stage(name, server) for name, server in servers.items()]
    chain = RemoteChain(stages, pipeline=pipeline)
    batches = [
        MicroBatch(prompts=dict.fromkeys(CHAIN, ("",)), seeds=dict.fromkeys(CHAIN, (number,)), targets={})
        for number in range(num_micro_batches)
    ]
    started_s = time.perf_counter()
    results = list(chain.run(batches, {}, Stopwatch()))
    return results, time.perf_counter() - started_s


def _stage(name: str, server: SpawnedServer) -> Stage:
    is_last = name == list(CHAIN)[-1]
    return Stage(
        name,
        server.client,
        CHAIN[name],
        loss_weight=float(is_last),
        trains=True,
        is_last=is_last,
        deadline_s=_DEADLINE_S,
    )
