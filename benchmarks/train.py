"""`mora bench train`: what does the border between processes cost a training step, and what does overlap gain?

The chain with a process for each agent and the chain in one process alternate on the same core(s), so that the
machine's drift affects both. Then the agents run on a core each, with and without overlap (`benchmarks.pipeline`), and
three equal stages whose work needs no core (`benchmarks.equal_stages`). Then the two halves of a multilayer perceptron
are compared with other libraries (`benchmarks.mlp`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from mora_launch.config.train_config import TrainConfig, load_config
from mora_launch.environments.venvs import ROOT

from benchmarks.chain_session import ChainSession, SingleProcessTwin, chain_session
from benchmarks.equal_stages import measurement as equal_stages
from benchmarks.figures import add_json_option, publish
from benchmarks.machine import describe_machine
from benchmarks.mlp.measurement import Plan, measure
from benchmarks.mlp.report import as_report
from benchmarks.pipeline import measure_pipeline


def measure_border(
    config: TrainConfig, path: Path, *, cores: list[int], num_rounds: int, steps_a_round: int
) -> dict[str, Any]:
    """Median step time of both chains over interleaved rounds; the first round of each is warm-up."""
    every_core = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # every process started after this inherits it
    try:
        return _measure_border(config, path, cores=cores, num_rounds=num_rounds, steps_a_round=steps_a_round)
    finally:
        os.sched_setaffinity(0, every_core)


def _measure_border(
    config: TrainConfig, path: Path, *, cores: list[int], num_rounds: int, steps_a_round: int
) -> dict[str, Any]:
    with chain_session(config, path) as session, SingleProcessTwin(session.write_spec(path)) as twin:
        ours: list[float] = []
        theirs: list[float] = []
        ratios: list[float] = []
        breakdowns: list[dict[str, float]] = []
        for number in range(num_rounds + 1):
            ours_s, parts = _our_round(session, number * steps_a_round, steps_a_round)
            theirs_s = [report["step_s"] for report in twin.ask(do="steps", count=steps_a_round)["reports"]]
            if number > 0:
                ours += ours_s
                theirs += theirs_s
                breakdowns += parts
                ratios.append(statistics.median(ours_s) / statistics.median(theirs_s))
    return {
        "overhead_vs_single_process": statistics.median(ratios) - 1.0,
        "step_s": statistics.median(ours),
        "single_process_step_s": statistics.median(theirs),
        "ratio_by_round": [round(ratio, 4) for ratio in ratios],
        "breakdown_s": {
            name: statistics.median(parts.get(name, 0.0) for parts in breakdowns) for name in breakdowns[0]
        },
        "num_steps": len(ours),
        "cores": cores,
        "torch": torch.__version__,
    }


def _our_round(session: ChainSession, first: int, count: int) -> tuple[list[float], list[dict[str, float]]]:
    batches = session.batches()  # the same batch as the single process, so that both do the same work
    times: list[float] = []
    parts: list[dict[str, float]] = []
    for step in range(first, first + count):
        started_s = time.perf_counter()
        report = session.step(step, batches)
        times.append(time.perf_counter() - started_s)
        parts.append(report.breakdown_s)
    return times, parts


def main() -> None:
    """Command line of the measurement."""
    parser = argparse.ArgumentParser(prog="mora bench train", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny.yaml")
    add_json_option(parser)
    parser.add_argument("--core", type=int, action="append", help="core that all processes share (default: 0)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps per round")
    parser.add_argument("--micro-batches", type=int, default=8, help="micro-batches of a step when measuring overlap")
    arguments = parser.parse_args()
    config = load_config(arguments.config, [])
    with tempfile.TemporaryDirectory(prefix="mora-bench-train-") as folder:
        result = measure_border(
            config,
            Path(folder) / "run",
            cores=arguments.core or [0],
            num_rounds=arguments.rounds,
            steps_a_round=arguments.steps,
        )
        result["machine"] = describe_machine()
        result["pipeline"] = measure_pipeline(
            arguments.config, num_micro_batches=arguments.micro_batches, num_rounds=arguments.rounds
        )
        result["equal_stages"] = equal_stages.measure(equal_stages.Plan())
        result["mlp"] = as_report(*measure(Plan(num_rounds=arguments.rounds + 1)))
    publish(result, arguments.json)
    if not result["mlp"]["weights_equal"]:
        sys.exit("mora bench train: weights differ from those of one process, so the times of `mlp` are not comparable")


if __name__ == "__main__":
    main()
