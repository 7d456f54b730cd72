"""What overlapping micro-batches gains over one at a time: all agents compute at once, each on its own core.

Part of `mora bench train`. Both ways run interleaved on the same servers; the ideal is computed from the agents' own
compute times of the same steps (`mora_launch.profiling.schedule`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT
from mora_trainer.chain.micro_batch import MicroBatch, MicroBatchResult
from mora_trainer.chain.remote_chain import RemoteChain
from mora_trainer.chain.stage import Embeddings
from mora_trainer.chain.stopwatch import Stopwatch
from mora_trainer.settings import PipelineSettings

from benchmarks.chain_session import ChainSession, chain_session
from benchmarks.least_time import least_time_s

_OVERLAPPED = PipelineSettings()
_ONE_BY_ONE = PipelineSettings(max_in_flight=1)
_MAX_NUM_FIRST_STEPS = 64


def measure_pipeline(config: Path, *, num_micro_batches: int, num_rounds: int) -> dict[str, Any]:
    """Step times with and without overlap over interleaved rounds, and the ideal.

    More denoising steps, all with gradient, make the first agent as expensive as the most expensive other one; their
    number is measured first. Each measurement has its own process, because DeepSpeed can be started only once in a
    process.
    """
    common = ["--config", str(config), "--micro-batches", str(num_micro_batches)]
    found = _in_own_process([*common, "--first-steps", "4", "--rounds", "1"])
    first_s, *others_s = (found[f"{name}_s"] for name in load_config(config, []).chain_names)
    num_steps = max(1, min(_MAX_NUM_FIRST_STEPS, round(4 * max(others_s, default=first_s) / first_s)))
    return _in_own_process([*common, "--first-steps", str(num_steps), "--rounds", str(num_rounds)])


def _in_own_process(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.pipeline", *arguments]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(said.stdout[said.stdout.index("{") :])
    return found


def _with_steps(config: TrainConfig, num_micro_batches: int, num_first_steps: int) -> TrainConfig:
    """The configuration with this many denoising steps of the first agent, and micro-batches of one sample."""
    name = config.chain_names[0]
    options = {**config.agents[name].options, "num_inference_steps": num_first_steps, "gradient_steps": "all"}
    first = config.agents[name].model_copy(update={"options": options})
    training = config.training.model_copy(update={"batch_size": num_micro_batches, "micro_batch_size": 1})
    return config.model_copy(update={"agents": {**config.agents, name: first}, "training": training})


def _costs(session: ChainSession) -> dict[str, float]:
    """Seconds of each agent for one micro-batch, while all compute."""
    _run(session, 0)
    results, _, _ = _run(session, 1)
    return {
        name: statistics.median(
            result.compute_s[f"{name}_forward"] + result.compute_s[f"{name}_backward"] for result in results
        )
        for name in session.config.chain_names
    }


def _interleaved(session: ChainSession, num_rounds: int) -> dict[str, Any]:
    chain = session.config.chain_names
    max_in_flight = _OVERLAPPED.in_flight(len(chain))
    spent_s: dict[str, list[float]] = {"overlapped": [], "one_by_one": []}
    ideals: list[float] = []
    ideal_fractions: list[float] = []
    for number in range(2 * (num_rounds + 1)):
        name = ("one_by_one", "overlapped")[number % 2]
        session.chain.pipeline = _OVERLAPPED if name == "overlapped" else _ONE_BY_ONE
        results, step_s, ending_s = _run(session, number)
        if number < 2:
            continue  # warm-up of both ways
        spent_s[name].append(step_s)
        if name == "overlapped":
            ideal_s = least_time_s(results, chain, max_in_flight) + ending_s
            ideals.append(ideal_s)
            ideal_fractions.append(ideal_s / step_s)
    costs = _costs(session)
    return {
        "microbatches": len(session.batches()),
        "step_s": statistics.median(spent_s["overlapped"]),
        "sequential_s": statistics.median(spent_s["one_by_one"]),
        "critical_path_s": statistics.median(ideals),
        "fraction_of_ideal": statistics.median(ideal_fractions),
        "speedup": statistics.median(spent_s["one_by_one"]) / statistics.median(spent_s["overlapped"]),
        **{f"{name}_s": spent_s for name, spent_s in costs.items()},
        "max_in_flight": max_in_flight,
        "num_rounds": num_rounds,
    }


class _Recorder(RemoteChain):
    """A chain that stores the results of its micro-batches while a whole step runs."""

    def __init__(self, chain: RemoteChain) -> None:
        super().__init__(chain.stages, pipeline=chain.pipeline)
        self.results: list[MicroBatchResult] = []

    def run(
        self, batches: Sequence[MicroBatch], embeddings: Embeddings, watch: Stopwatch
    ) -> Iterator[MicroBatchResult]:
        """As `RemoteChain.run`."""
        for result in super().run(batches, embeddings, watch):
            self.results.append(result)
            yield result


def _run(session: ChainSession, number: int) -> tuple[list[MicroBatchResult], float, float]:
    """Run a whole step on the first batch: its micro-batches, its time, and the part of it after the micro-batches."""
    recorder = _Recorder(session.chain)
    session.joint_step.chain = recorder
    batches = session.batches(0)
    started_s = time.perf_counter()
    report = session.step(number, batches)
    step_s = time.perf_counter() - started_s
    session.joint_step.chain = session.chain
    return recorder.results, step_s, sum(report.breakdown_s[part] for part in ("agree", "prepare", "commit"))


def main() -> None:
    """Measure with a given number of denoising steps and print JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.pipeline", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny.yaml")
    parser.add_argument("--micro-batches", type=int, default=8)
    parser.add_argument(
        "--first-steps", type=int, default=4, help="denoising steps of the first agent, all with gradient"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config = _with_steps(load_config(arguments.config, []), arguments.micro_batches, arguments.first_steps)
    with (
        tempfile.TemporaryDirectory(prefix="mora-bench-pipeline-") as folder,
        chain_session(config, Path(folder) / "run") as session,
    ):
        result = _interleaved(session, arguments.rounds)
    result[f"{config.chain_names[0]}_steps"] = arguments.first_steps
    print(json.dumps(result))


if __name__ == "__main__":
    main()
