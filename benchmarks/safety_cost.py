"""`mora bench safety_cost`: what checkpoints and heartbeats cost a job without failures.

Checkpoints: the same servers and coordinator run blocks of steps with and without a checkpoint alternately, so that the
machine's drift affects both. A block has `training.checkpoint_every` steps and ends when its checkpoint is committed.
Heartbeats: the processor time of one; every role's thread makes one a second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mora_launch.config.train_config import load_config
from mora_launch.environments.venvs import ROOT
from mora_runtime.process.supervisor_link import BEAT_EVERY_S, own_vitals
from mora_trainer.checkpoint.checkpointer import Checkpointer

from benchmarks.chain_session import DEADLINE_S, ChainSession, chain_session
from benchmarks.figures import add_json_option, publish
from benchmarks.machine import describe_machine

_NUM_BEATS = 500


def measure(config_path: Path, folder: Path, *, num_rounds: int, every: int | None) -> dict[str, Any]:
    """Ratios of block times by round, and the share of a core that heartbeats take."""
    config = load_config(config_path, [])
    num_steps = every or config.training.checkpoint_every
    with chain_session(config, folder / "run") as session:
        checkpointer = Checkpointer(
            session.directory.checkpoints, session.clients, session.modulation, lock_hashes={}, keep=2,
            deadline_s=DEADLINE_S,
        )  # fmt: skip
        times = _interleaved(session, checkpointer, num_rounds, num_steps)
    ratios = [on / off for on, off in zip(times["on"], times["off"], strict=True)]
    return {
        "checkpoint_cost": statistics.median(ratios) - 1.0,
        "checkpoint_cost_standard_error": 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5,  # of a median
        "checkpoint_every_steps": num_steps,
        "step_s": statistics.median(times["off"]) / num_steps,
        "ratio_by_round": [round(ratio, 4) for ratio in ratios],
        "heartbeat_cost": beat_s() / BEAT_EVERY_S,
        "machine": describe_machine(),
    }


def beat_s() -> float:
    """Processor time of one heartbeat's content."""
    started_ns = time.process_time_ns()
    for _ in range(_NUM_BEATS):
        json.dumps({"event": "beat", "vitals": {**own_vitals(), "step": 1, "num_leases": 3, "arena_nbytes": 1 << 26}})
    return (time.process_time_ns() - started_ns) / _NUM_BEATS / 1e9


def _interleaved(
    session: ChainSession, checkpointer: Checkpointer, num_rounds: int, num_steps: int
) -> dict[str, list[float]]:
    """Run blocks with and without a checkpoint; the order alternates. The first round of both is warm-up."""
    times: dict[str, list[float]] = {"on": [], "off": []}
    done = 0
    for round_number in range(num_rounds + 1):
        for name in ("on", "off") if round_number % 2 else ("off", "on"):
            started_s = time.perf_counter()
            if name == "on":
                checkpointer.begin(done)
            for _ in range(num_steps):
                session.step(done)
                done += 1
                checkpointer.finish(wait=False)
            checkpointer.finish(wait=True)
            if round_number:
                times[name].append(time.perf_counter() - started_s)
    return times


def main() -> None:
    """Command line of the measurement."""
    parser = argparse.ArgumentParser(prog="mora bench safety_cost", description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "tiny.yaml")
    add_json_option(parser)
    parser.add_argument("--rounds", type=int, default=10, help="pairs of blocks, 2 or more")
    parser.add_argument("--every", type=int, help="steps between checkpoints; default: from the configuration")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mora-bench-safety-") as folder:
        result = measure(arguments.config, Path(folder), num_rounds=arguments.rounds, every=arguments.every)
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
