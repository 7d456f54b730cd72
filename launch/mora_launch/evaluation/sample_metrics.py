"""`samples.metrics`: metrics of the samples that training has made, as curves in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mora_launch.config.train_config import TrainConfig
from mora_launch.evaluation.output.sample_curves import write_curves
from mora_launch.evaluation.run_metrics import RunMetrics, StepValue, Values

_KEY = "samples.metrics"
_FOLDER = Path("samples") / "metrics"  # of the run


class SampleMetrics:
    """Measures the samples of a run of training after its processes have ended, so that memory is free for the metrics.

    Args:
        run: the directory of the run; it need not exist yet.
    """

    def __init__(self, config: TrainConfig, run: Path, console: Console) -> None:
        self._dimensions = config.samples.metrics if config.samples.enabled else ()
        self._metrics = RunMetrics(run, run / _FOLDER, config, self._dimensions, _KEY, console)
        self._run = run
        self._last_step = config.training.num_steps
        self._console = console

    def check(self) -> None:
        """Raises: SettingsError: a metric cannot be used."""
        self._metrics.check()

    def follow(self) -> None:
        """Measure the samples of all steps that have no result yet, and write the curves.

        Raises:
            KeyboardInterrupt: the user asked to stop; the results so far are stored.
            MoraError: no metric can be used, or a file cannot be written.
        """
        if not self._dimensions:
            return
        values = by_step(self._metrics.measure(), self._last_step)
        curves = {
            step: {name: value.overall.value for name, value in found.items() if value.overall is not None}
            for step, found in values.items()
        }
        write_curves(self._run, curves)
        self._console.print(_table(values, self._dimensions))
        num_failed = sum(value.num_failed for found in values.values() for value in found.values())
        if num_failed:
            self._console.print(
                f"{num_failed} measurements of samples failed; --resume --run {self._run} tries them again",
                style="yellow", markup=False, soft_wrap=True,
            )  # fmt: skip


def by_step(values: Values, last_step: int) -> dict[int, dict[str, StepValue]]:
    """Return values by number of steps done. A stopped and a resumed job may both have made the samples of a step.

    Args:
        values: by label of the samples, as `Sampler.take` gives it.
    """
    known = {"before": 0, "after": last_step}
    steps = {label: known[label] if label in known else int(label.rpartition("-")[2]) for label in values}
    return {steps[label]: values[label] for label in sorted(values, key=lambda label: steps[label])}


def _table(values: Mapping[int, Mapping[str, StepValue]], dimensions: Sequence[str]) -> Table:
    table = Table("samples", *(f"after {step} steps" for step in values), box=None, pad_edge=False)
    for name in dimensions:
        table.add_row(name, *(str(found[name]) for found in values.values()))
    return table
