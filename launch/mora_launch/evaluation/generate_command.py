"""`mora evaluate --generate`: makes the videos of VBench's suite before they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.evaluation.command import EXIT_INTERRUPTED
from mora_launch.evaluation.suite.generation import generate_suite, suite_orders
from mora_launch.evaluation.suite.video_file import VIDEOS

_SERVERS = "models"  # folder of the output: logs of the servers that make videos


def generate(
    config: TrainConfig, dimensions: Sequence[str], output: Path, seed: int, limit: int | None, console: Console,
    size: tuple[int, int] | None = None,
) -> int:  # fmt: skip
    """Make the videos that are missing. Returns 0, or 130 when stopped by Ctrl-C. Raises: MoraError."""
    orders = suite_orders(dimensions, seed, limit)
    with RunDirectory.create(output / _SERVERS, lock=True) as directory:
        try:
            generate_suite(config, orders, output / VIDEOS, directory, console, size=size)
        except KeyboardInterrupt:
            console.print("stopped; the same command continues", markup=False)
            return EXIT_INTERRUPTED
    return 0
