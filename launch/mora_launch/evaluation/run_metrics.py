"""Metrics of the videos that a run has made: rounds and training follow them over the steps of the run.

The results are in a folder of the run, in the store of `mora evaluate`. `metrics.json` next to them has the values of
each step, and a hash of what they were made from, so that no server is started where nothing is left to measure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mora_runtime.errors import SettingsError, StorageError
from mora_runtime.files.durable_files import replace_text, sha256_of
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_object
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.evaluation.config import EvaluationConfig
from mora_launch.evaluation.evaluation import EvaluateOptions, Evaluation
from mora_launch.evaluation.measuring.checked_metrics import check_metrics
from mora_launch.evaluation.measuring.result import settings_hash
from mora_launch.evaluation.output.overall import Overall
from mora_launch.evaluation.output.summary import Outcome
from mora_launch.limits import MAX_RECORD_NBYTES

VALUES_FILE = "metrics.json"


@dataclass(frozen=True)
class StepValue:
    """What one dimension says about the videos of one step.

    Attributes:
        overall: None if no video has a score.
        num_failed: videos that are neither scored nor refused; the next start tries them again.
    """

    overall: Overall | None
    num_refused: int
    num_failed: int

    def __str__(self) -> str:
        counts = {"refused": self.num_refused, "failed": self.num_failed}
        without = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        value = "-" if self.overall is None else str(self.overall)
        return f"{value} ({without})" if without else value


Values = dict[str, dict[str, StepValue]]  # by label of the step, as `VideoFile.group`, and dimension


@dataclass(frozen=True)
class _Stored:
    """The content of `metrics.json`."""

    made_from: str
    values: Values


class RunMetrics:
    """Measures the videos of a run.

    Args:
        run: has videos, and the configuration of its last start.
        folder: of the results.
        config: has the metrics, in its section `evaluation`.
        dimensions: to measure; without any nothing is.
        key: of the configuration, which names the dimensions.
    """

    def __init__(
        self, run: Path, folder: Path, config: TrainConfig, dimensions: Sequence[str], key: str, console: Console
    ) -> None:
        self._options = EvaluateOptions((run,), "all", tuple(dimensions), folder, prompt_set="custom")
        self._config = EvaluationConfig.of(config)
        self._metrics = self._config.evaluation.metrics_for(tuple(dimensions))
        self._key = key
        self._console = console

    def check(self) -> None:
        """Check everything that can be known before there are videos.

        Raises:
            SettingsError: a dimension has no metric, or its metric cannot be used; the text says why.
        """
        found = {name for metric in self._metrics.values() for name in metric.dimensions}
        why = [f"no metric of `evaluation` measures {name}" for name in self._options.dimensions if name not in found]
        if self._metrics:
            _, refused = check_metrics(self._config.served(self._metrics), self._console)
            why += refused.values()
        if why:
            raise SettingsError(f"{self._key} cannot be measured: {'; '.join(why)}; change it, or leave it out")

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices of the metrics' servers."""
        return tuple(device for metric in self._metrics.values() for device in metric.devices)

    def has_work(self) -> bool:
        """Whether something is not measured yet."""
        if not self._options.dimensions:
            return False
        stored = _read(self._options.output)
        if stored is None or stored.made_from != self._made_from(self._evaluation().outcome):
            return True
        return any(value.num_failed for values in stored.values.values() for value in values.values())

    def measure(self) -> Values:
        """Measure what has no result yet, if anything, and return the values. Metric servers run only meanwhile.

        Raises:
            KeyboardInterrupt: the user asked to stop; the results so far are stored.
            MoraError: no metric can be used, or a result cannot be stored.
        """
        if not self.has_work():
            return read_values(self._options.output)
        evaluation = self._evaluation()
        made_from = self._made_from(evaluation.outcome)
        values = values_of(evaluation.run())
        content = asdict(_Stored(made_from, values))
        path = self._options.output / VALUES_FILE
        try:
            replace_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written: {error.strerror}; free disk space and resume the run, which repeats no "
                "measurement"
            ) from None
        return values

    def _evaluation(self) -> Evaluation:
        return Evaluation(self._options, self._config, self._console)

    def _made_from(self, outcome: Outcome) -> str:
        """A hash of what the values depend on: the metrics' settings, and the videos."""
        metrics = {name: metric.model_dump(mode="json") for name, metric in self._metrics.items()}
        videos = [(video.name, video.prompt, _sha256(video.path)) for video in outcome.sources.videos]
        return settings_hash({"metrics": metrics, "videos": videos})


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return ""  # the evaluation refuses the video


def read_values(folder: Path) -> Values:
    """Return the values that were measured last; empty before that."""
    stored = _read(folder)
    return {} if stored is None else stored.values


def _read(folder: Path) -> _Stored | None:
    """The content of the file; None without one, or with one of another version, which is then made again."""
    try:
        return TypeAdapter(_Stored).validate_python(parse_object(read_foreign(folder / VALUES_FILE, MAX_RECORD_NBYTES)))
    except (OSError, ValueError, ValidationError):
        return None


def values_of(outcome: Outcome) -> Values:
    """Return the value of every step and dimension of an evaluation."""
    return {group: {name: _value(outcome, name, group) for name in outcome.dimensions} for group in outcome.groups}


def _value(outcome: Outcome, dimension: str, group: str) -> StepValue:
    names = {video.name for video in outcome.sources.videos if video.group == group}
    num_refused = sum(each.dimension == dimension and each.file in names for each in outcome.all_refused())
    overall = outcome.overall(dimension, group)
    num_scored = 0 if overall is None else overall.num_videos
    return StepValue(overall, num_refused, len(names) - num_refused - num_scored)
