"""`synthesis.evaluation_metrics`: metrics of the videos for held-out prompts, before and after each round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.evaluation.run_metrics import RunMetrics, StepValue, read_values
from mora_launch.rounds.evaluation import EVALUATION

_KEY = "synthesis.evaluation_metrics"
_FOLDER = Path(EVALUATION) / "metrics"  # of the run


def held_out_metrics(run: Path, config: TrainConfig, console: Console) -> RunMetrics:
    """Return what measures the videos for held-out prompts of a run, which need not exist yet."""
    return RunMetrics(run, run / _FOLDER, config, config.synthesis.evaluation_metrics, _KEY, console)


def held_out_values(run: Path, steps: Sequence[int]) -> list[dict[str, StepValue]]:
    """Return what was measured after each of the steps, by dimension."""
    values = read_values(run / _FOLDER)
    return [values.get(f"step-{step}", {}) for step in steps]
