"""One evaluation: finds videos, checks and starts metrics, and measures what has no result yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mora_runtime.errors import MoraError, RoleFailed, SettingsError, StorageError
from mora_runtime.files.durable_files import sha256_of
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console

from mora_launch.environments.catalog import environments_of
from mora_launch.evaluation.captions.settings import CaptionSettings
from mora_launch.evaluation.captions.video_ti import VIDEO_TI, VideoTi
from mora_launch.evaluation.config import EvaluationConfig, roles_of
from mora_launch.evaluation.measuring.checked_metrics import CheckedMetric, check_metrics
from mora_launch.evaluation.measuring.feature_plan import Comparison, plan_features
from mora_launch.evaluation.measuring.measurements import Failure, Measurements
from mora_launch.evaluation.measuring.metric_servers import MetricServers, check_described
from mora_launch.evaluation.measuring.plan import Measured, Plan, make_plan
from mora_launch.evaluation.measuring.result import Key, Result
from mora_launch.evaluation.measuring.result_store import RESULTS_FILE, ResultStore
from mora_launch.evaluation.output.compared import compared
from mora_launch.evaluation.output.summary import MODE, Outcome, Refusal
from mora_launch.evaluation.progress import MeasuringProgress, outcome_of
from mora_launch.evaluation.settings import EvaluationSettings
from mora_launch.evaluation.suite.dimensions import FEATURES
from mora_launch.evaluation.suite.pairs import COMPARED, with_inputs
from mora_launch.evaluation.suite.sources import PromptSet, find_videos
from mora_launch.evaluation.suite.video_file import VideoFile
from mora_launch.resuming.run_configs import has_run, latest_config

Places = dict[str, tuple[Key, ...]]  # of features, by name of the output
_SERVERS = "servers"  # folder of the output: logs of the metric servers


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of the command line.

    Attributes:
        output: folder of the results, new or to be continued.
        json_file: where the summary goes besides.
        pairs: a file with the inputs of the videos.
    """

    sources: tuple[Path, ...]
    suite: str
    dimensions: tuple[str, ...]
    output: Path
    prompts: Path | None = None
    prompt_set: PromptSet = "auto"
    json_file: Path | None = None
    name: str = "mora"
    task: str = "text-to-video"
    pairs: Path | None = None


class Evaluation:
    """Measures the videos of the options with the metrics of a configuration.

    Raises:
        SettingsError: the videos or their prompts cannot be found.
    """

    def __init__(self, options: EvaluateOptions, config: EvaluationConfig, console: Console) -> None:
        found = find_videos(options.sources, options.dimensions, options.prompts, options.prompt_set)
        self._output = options.output
        self._config = config
        self._console = console
        self._comparison: Comparison | None = None
        self._captions: CaptionSettings | None = None
        self._videos: list[tuple[VideoFile, str]] = []  # with the hashes of their files
        dimensions, measured = options.dimensions, options.dimensions
        if options.pairs is not None:
            found = replace(found, videos=with_inputs(found.videos, options.pairs, options.task))
            if COMPARED[options.task][0] == VIDEO_TI:
                self._captions = _captions(config.evaluation)
                dimensions = (*dimensions, VIDEO_TI)
            else:
                self._comparison = _comparison(options.task, config.evaluation)
                dimensions, measured = (*dimensions, self._comparison.metric), (*dimensions, FEATURES)
        self._metrics = config.evaluation.metrics_for(measured)
        self._lost: dict[str, str] = {}  # metrics that could not be used, or whose servers all ended
        self.outcome = Outcome(
            options.name, options.suite, dimensions, found, task=options.task,
            modulation=_modulation(options.sources),
        )  # fmt: skip

    def run(self) -> Outcome:
        """Measure what has no result yet, and return everything that is known then.

        Raises:
            KeyboardInterrupt: the user asked to stop; what is measured is stored.
            MoraError: no metric can be used, or a result cannot be stored.
        """
        with RunDirectory.create(self._output / _SERVERS, lock=True) as directory:
            checked, self._lost = check_metrics(self._config.served(self._metrics), self._console)
            for name, why in self._lost.items():
                self._console.print(f"{name} is left out: {why}", style="yellow", markup=False)
            if not checked:
                raise RoleFailed("no metric can be used; the lines above say why")
            self.outcome.made = [name for name in checked if self._metrics[name].tiny_models is not None]
            with ResultStore(self._output / RESULTS_FILE) as store:
                plan, places = self._measure(checked, directory, store)
                self.outcome.results = plan.results(store)
                self._compare(places, store)
                self._caption(directory, store)
        self.outcome.refused += [Refusal(*place, why) for place, why in plan.refused.items()]
        self.outcome.unmeasured = self._unmeasured()
        return self.outcome

    def _measure(
        self, checked: Mapping[str, CheckedMetric], directory: RunDirectory, store: ResultStore
    ) -> tuple[Plan, Places]:
        settings = self._config.evaluation
        roles = roles_of({name: metric for name, metric in self._metrics.items() if name in checked})
        with MetricServers(
            self._config.served(self._metrics), checked, roles, directory, self._console,
            frames_nbytes=2 * settings.max_decoded_nbytes, deadline_s=settings.deadline_s,
        ) as servers:  # fmt: skip
            for name in checked:
                self._describe(name, servers.about(name), checked[name])
            self._videos = list(self._hashed())
            scored = [each for each in self.outcome.measured if each.dimension != FEATURES]
            plan = make_plan(self._videos, scored, store, MODE)
            places = {}
            if self._comparison is not None and (features := self._features()) is not None:
                places = plan_features(plan, self._videos, self._comparison, features, store)
            with MeasuringProgress(self._console, plan.num_tasks, len(plan.results(store))) as progress:
                Measurements(plan, servers, store, settings, lambda done: self._take(done, progress)).run()
            self._lost.update(servers.lost)
        return plan, places

    def _features(self) -> Measured | None:
        """How features are measured; None if their metric is lost."""
        return next((each for each in self.outcome.measured if each.dimension == FEATURES), None)

    def _compare(self, places: Places, store: ResultStore) -> None:
        """Take the scores of outputs that are compared with their inputs into the outcome."""
        features = self._features()
        if self._comparison is None or features is None:
            return
        self.outcome.results.update(compared(places, self._comparison, features, store))
        self.outcome.measured.append(
            replace(
                features, dimension=self._comparison.metric, settings={**features.settings, **self._comparison.settings}
            )
        )

    def _caption(self, directory: RunDirectory, store: ResultStore) -> None:
        """Score videos by captions, after all servers of metrics have ended."""
        if self._captions is None:
            return
        unknown = "its picture is not known; name it in --pairs"
        self.outcome.refused += [
            Refusal(video.name, VIDEO_TI, unknown) for video, _ in self._videos if not video.inputs
        ]
        stage = VideoTi(
            self._captions, environments_of(self._config), store,
            max_nbytes=self._config.evaluation.max_video_nbytes, on_done=self._take_caption,
        )  # fmt: skip
        try:
            found = stage.run(self._videos, self._output, directory)
        except StorageError:
            raise
        except MoraError as error:  # the other metrics' results are there
            self._lost[VIDEO_TI] = " ".join(str(error).split())
            self._console.print(f"VideoTI is left out: {self._lost[VIDEO_TI]}", style="yellow", markup=False)
            return
        self.outcome.measured.append(stage.measured)
        self.outcome.results.update({(name, VIDEO_TI): result for name, result in found.items()})

    def _take_caption(self, done: Result | Failure) -> None:
        kind, why = outcome_of(done)
        self._console.print(f"{VIDEO_TI} {kind}: {done.file}" + (f": {why}" if why else ""), markup=False)
        if isinstance(done, Failure):
            self.outcome.failed.append(done)

    def _describe(self, name: str, about: Mapping[str, object], checked: CheckedMetric) -> None:
        """Take over what a metric's agent says about itself; nothing if it has no server."""
        if not about:
            return
        for dimension, version in check_described(name, about, self._metrics[name].dimensions).items():
            self.outcome.measured.append(Measured(dimension, name, version, checked.settings, checked.options.options))
        notes = about.get("notes")
        for note in notes if isinstance(notes, list) else ():
            self.outcome.notes.append(f"{name}: {note}")
            self._console.print(f"{name}: {note}", markup=False)

    def _hashed(self) -> Iterator[tuple[VideoFile, str]]:
        """The videos with the hashes of their files; those that cannot be read are refused."""
        for video in self.outcome.sources.videos:
            try:
                yield video, sha256_of(video.path)
            except OSError as error:
                why = f"cannot be read: {error.strerror}"
                self._console.print(f"refused: {video.name}: {why}", style="yellow", markup=False)
                self.outcome.refused += [
                    Refusal(video.name, each.dimension, why)
                    for each in self.outcome.measured
                    if video.counts_for(each.dimension)
                ]

    def _take(self, done: Result | Failure, progress: MeasuringProgress) -> None:
        progress.take(done)
        if isinstance(done, Failure):
            self.outcome.failed.append(done)

    def _unmeasured(self) -> dict[str, str]:
        """Of each dimension that no metric measured, why."""
        why = {each: "no metric of the configuration measures it" for each in self.outcome.dimensions}
        for name, metric in self._metrics.items():
            for each in metric.dimensions:
                told = self._comparison.metric if each == FEATURES and self._comparison is not None else each
                why[told] = self._lost.get(name, f"{name} does not measure it")
        if VIDEO_TI in self._lost:
            why[VIDEO_TI] = self._lost[VIDEO_TI]
        measured = {each.dimension for each in self.outcome.measured}
        return {dimension: reason for dimension, reason in why.items() if dimension not in measured}

    @property
    def is_complete(self) -> bool:
        """False if something failed that another start may measure."""
        return not (self.outcome.failed or self._lost)


def _comparison(task: str, settings: EvaluationSettings) -> Comparison:
    """How the outputs of a task, one of `COMPARED`, are compared with their inputs."""
    metric, _ = COMPARED[task]
    if metric == "tmean":
        return Comparison(metric, is_part=True, num_borders=int(settings.tmean == "with_borders"))
    return Comparison(metric, is_part=settings.tcon == "new")


def _captions(settings: EvaluationSettings) -> CaptionSettings:
    if settings.captions is None:
        raise SettingsError("evaluation.captions: VideoTI needs a model that describes videos; name one there")
    return settings.captions


def _modulation(sources: Sequence[Path]) -> str:
    """The mode of modulation of the one run that the videos are from; empty if they are not."""
    return latest_config(sources[0]).modulation.mode if len(sources) == 1 and has_run(sources[0]) else ""
