"""What overlapping micro-batches gains over one at a time: two agents of equal cost, each on its own core.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT
from mora_launch.profiling.chain import chain_of
from mora_launch.profiling.schedule import StageSeconds, critical_path_s
from mora_trainer.chain import MicroBatchResult, RemoteChain
from mora_trainer.settings import PipelineSettings

from benchmarks.chain_session import ChainSession, chain_session

_OVERLAPPED = PipelineSettings()
_ONE_BY_ONE = PipelineSettings(max_in_flight=1)
_MAX_NUM_IMAGE_STEPS = 64


def measure_pipeline(config: Path, *, num_micro_batches: int, num_rounds: int) -> dict[str, Any]:
    """Step times with and without overlap over interleaved rounds, and the ideal.

    More denoising steps, all with gradient, make the image agent of the tiny configuration as expensive as the video
    agent; their number is measured first. Each measurement has its own process, because DeepSpeed can be started only
    once in a process.
    """
    common = ["--config", str(config), "--micro-batches", str(num_micro_batches)]
    costs = _in_own_process([*common, "--image-steps", "4", "--rounds", "1"])
    num_steps = max(1, min(_MAX_NUM_IMAGE_STEPS, round(4 * costs["video_s"] / costs["image_s"])))
    return _in_own_process([*common, "--image-steps", str(num_steps), "--rounds", str(num_rounds)])


def _in_own_process(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.pipeline", *arguments]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(said.stdout[said.stdout.index("{") :])
    return found


def _with_steps(config: TrainConfig, num_micro_batches: int, num_image_steps: int) -> TrainConfig:
    options = {**config.agents.image.options, "num_inference_steps": num_image_steps, "gradient_steps": "all"}
    image = config.agents.image.model_copy(update={"options": options})
    training = config.training.model_copy(update={"batch_size": num_micro_batches, "micro_batch_size": 1})
    agents = config.agents.model_copy(update={"image": image})
    return config.model_copy(update={"agents": agents, "training": training})


def _costs(session: ChainSession) -> dict[str, float]:
    """Seconds of each agent for one micro-batch, while both compute."""
    _run(session, 0)
    results, _, _ = _run(session, 1)
    return {
        name: statistics.median(
            sum(spent_s for part, spent_s in result.compute_s.items() if part.startswith(name)) for result in results
        )
        for name in ("image", "video")
    }


def stage_seconds(result: MicroBatchResult, chain: Sequence[str]) -> list[StageSeconds]:
    """The agents' compute times of one micro-batch, in the order of the chain."""
    return [StageSeconds(result.compute_s[f"{name}_forward"], result.compute_s[f"{name}_backward"]) for name in chain]


def _interleaved(session: ChainSession, num_rounds: int) -> dict[str, Any]:
    chain = chain_of(session.config)
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
            times = [stage_seconds(result, chain) for result in results]
            ideal_s = critical_path_s(times, _OVERLAPPED.max_in_flight) + ending_s
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
        "image_s": costs["image"],
        "video_s": costs["video"],
        "max_in_flight": _OVERLAPPED.max_in_flight,
        "num_rounds": num_rounds,
    }


class _Recorder:
    """Stores the results of a chain's micro-batches while a whole step runs."""

    def __init__(self, chain: RemoteChain) -> None:
        self.results: list[MicroBatchResult] = []
        self._chain = chain

    def run(self, *arguments: Any) -> Any:
        """Call the chain's method of this name and store what it returns."""
        for result in self._chain.run(*arguments):
            self.results.append(result)
            yield result


def _run(session: ChainSession, number: int) -> tuple[list[MicroBatchResult], float, float]:
    """Run a whole step on the first batch: its micro-batches, its time, and the part of it after the micro-batches."""
    recorder = _Recorder(session.chain)
    session.joint_step.chain = recorder  # type: ignore[assignment]
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
    parser.add_argument("--image-steps", type=int, default=4, help="denoising steps, all with gradient")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config = _with_steps(load_config(arguments.config, []), arguments.micro_batches, arguments.image_steps)
    with (
        tempfile.TemporaryDirectory(prefix="mora-bench-pipeline-") as folder,
        chain_session(config, Path(folder) / "run") as session,
    ):
        result = {**_interleaved(session, arguments.rounds), "image_steps": arguments.image_steps}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
