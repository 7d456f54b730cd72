"""All variants of one scope, in their own process, because DeepSpeed can join only one process group in a process."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from mora_launch.config.train_config import TrainConfig

from benchmarks.chain_session import chain_session
from benchmarks.learn.report import Pairs
from benchmarks.learn.session import LearningSession
from benchmarks.learn.variants import VARIANTS


def measure_scope(config: TrainConfig, folder: Path, names: list[str], seeds: int, num_steps: int) -> Pairs:
    """Run the named variants, all of `config.scope`, over all seeds; call it once in a process."""
    torch.set_num_threads(1)
    found: Pairs = {name: [] for name in names}
    with chain_session(config, folder) as session:
        learning = LearningSession(session)
        for seed, name in itertools.product(range(seeds), names):
            before, after = learning.run(VARIANTS[name], seed, num_steps)
            found[name].append((before, after))
            shown = "  ".join(f"{what} {before[what]:.3f} -> {after[what]:.3f}" for what in before)
            print(f"seed {seed}  {name:22s} {shown}", flush=True)
    return found
