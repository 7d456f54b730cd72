"""`mora evaluate`: measures videos with the metrics of a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import RoleFailed, SettingsError, StorageError
from mora_runtime.files.durable_files import sha256_of
from mora_runtime.files.fresh_file import write_fresh
from mora_runtime.process.run_directory import RunDirectory
from rich.console import Console
from rich.table import Table

from mora_launch.evaluation.config import EvaluationConfig, roles_of
from mora_launch.evaluation.measuring.checked_metrics import CheckedMetric, check_metrics
from mora_launch.evaluation.measuring.measurements import Failure, Measurements
from mora_launch.evaluation.measuring.metric_servers import MetricServers, check_described
from mora_launch.evaluation.measuring.plan import Measured, Plan, make_plan
from mora_launch.evaluation.measuring.result import Result
from mora_launch.evaluation.measuring.result_store import RESULTS_FILE, ResultStore
from mora_launch.evaluation.output.report import write_report
from mora_launch.evaluation.output.summary import MODE, Outcome, Refusal, summary
from mora_launch.evaluation.output.vbench_files import leaderboard_zip, vbench_results
from mora_launch.evaluation.progress import MeasuringProgress
from mora_launch.evaluation.settings import MetricSettings
from mora_launch.evaluation.suite.dimensions import DIMENSIONS
from mora_launch.evaluation.suite.sources import PromptSet, find_videos
from mora_launch.evaluation.suite.video_file import VideoFile
from mora_launch.resuming.run_configs import has_run, latest_config

EXIT_INCOMPLETE = 5  # something failed that the next start tries again
EXIT_INTERRUPTED = 130
_SERVERS = "servers"  # folder of the output: logs of the metric servers
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of the command line.

    Attributes:
        output: folder of the results, new or to be continued.
        json_file: where the summary goes besides.
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


def evaluate(options: EvaluateOptions, config: EvaluationConfig, console: Console) -> int:
    """Measure what has no result yet, and write summary, VBench's files and the report.

    Returns:
        0; 5 if measurements failed, which the same command tries again; 130 when stopped by Ctrl-C.

    Raises:
        MoraError: refused, or no metric can be used.
    """
    found = find_videos(options.sources, options.dimensions, options.prompts, options.prompt_set)
    _tell_missing(found.missing, console)
    metrics = config.evaluation.metrics_for(options.dimensions)
    unmeasured = {each: "no metric of the configuration measures it" for each in options.dimensions}
    unmeasured.update({each: f"{name} does not measure it" for name, own in metrics.items() for each in own.dimensions})
    with RunDirectory.create(options.output / _SERVERS, lock=True) as directory:
        served = config.served(metrics)
        checked, lost = check_metrics(served, console)
        for name, why in lost.items():
            console.print(f"{name} is left out: {why}", style="yellow", markup=False)
        videos = [(video, sha256_of(video.path)) for video in found.videos]
        outcome = Outcome(
            options.name, options.suite, options.dimensions, found, [], {}, task=options.task,
            modulation=_modulation(options.sources),
            made=[name for name in checked if metrics[name].tiny_models is not None],
        )  # fmt: skip
        with ResultStore(options.output / RESULTS_FILE) as store:
            try:
                plan = _measure(config, metrics, checked, lost, videos, directory, store, outcome, console)
            except KeyboardInterrupt:
                console.print("stopped; the same command continues", markup=False)
                return EXIT_INTERRUPTED
            outcome.results = plan.results(store)
    outcome.refused = [Refusal(*place, why) for place, why in plan.refused.items()]
    for name, metric in metrics.items():
        if name in lost:
            unmeasured.update(dict.fromkeys(metric.dimensions, lost[name]))
    outcome.unmeasured = {
        each: why for each, why in unmeasured.items() if each not in {one.dimension for one in outcome.measured}
    }
    _write_all(options, outcome)
    console.print(overall_table(outcome))
    _tell_end(outcome, options.output, console)
    return EXIT_INCOMPLETE if outcome.failed or lost else 0


def _measure(
    config: EvaluationConfig, metrics: Mapping[str, MetricSettings], checked: Mapping[str, CheckedMetric],
    lost: dict[str, str], videos: Sequence[tuple[VideoFile, str]], directory: RunDirectory, store: ResultStore,
    outcome: Outcome, console: Console,
) -> Plan:  # fmt: skip
    """Start the servers and make all measurements. What happened goes into `outcome`, lost metrics into `lost`."""
    if not checked:
        raise RoleFailed("no metric can be used; the lines above say why")
    roles = roles_of({name: metric for name, metric in metrics.items() if name in checked})
    with MetricServers(
        config.served(metrics), checked, roles, directory, console,
        frames_nbytes=2 * config.evaluation.max_decoded_nbytes, deadline_s=config.evaluation.deadline_s,
    ) as servers:  # fmt: skip
        for name, metric in metrics.items():
            about = servers.about(name)
            if about:
                versions = check_described(name, about, metric.dimensions)
                outcome.measured = [
                    *outcome.measured,
                    *(Measured(each, name, version, checked[name].settings) for each, version in versions.items()),
                ]
                outcome.notes += [str(note) for note in about.get("notes", ())]
        for note in outcome.notes:
            console.print(note, markup=False)
        plan = make_plan(videos, outcome.measured, store, MODE)

        def take(done: Result | Failure) -> None:
            progress.take(done)
            if isinstance(done, Failure):
                outcome.failed.append(done)

        with MeasuringProgress(console, plan.num_tasks, len(plan.results(store))) as progress:
            Measurements(plan, servers, store, config.evaluation, take).run()
        lost.update(servers.lost)
    return plan


def _modulation(sources: Sequence[Path]) -> str:
    """The mode of modulation of the one run that the videos are from; empty if they are not."""
    return latest_config(sources[0]).modulation.mode if len(sources) == 1 and has_run(sources[0]) else ""


def _write_all(options: EvaluateOptions, outcome: Outcome) -> None:
    """Write every file that follows from the results; each is replaced completely."""
    folder = options.output
    text = json.dumps(summary(outcome), indent=1, allow_nan=False) + "\n"
    files: dict[Path, str | bytes] = {
        folder / SUMMARY_FILE: text,
        folder / f"{outcome.name}_eval_results.json": json.dumps(vbench_results(outcome), indent=1) + "\n",
        folder / f"{outcome.name}_leaderboard.zip": leaderboard_zip(outcome),
    }
    if options.json_file is not None:
        files[options.json_file] = text
    try:
        for path, content in files.items():
            write_fresh(path, content)
        write_report(folder, outcome)
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder}: cannot be written: {error.strerror}; the results are stored, so the same "
            "command writes it without measuring again"
        ) from None


def overall_table(outcome: Outcome) -> Table:
    """Return the overall values as a table for the terminal."""
    table = Table("dimension", "overall, 95 % interval", "videos", "refused", "failed", box=None, pad_edge=False)
    about: dict[str, Any] = summary(outcome)["dimensions"]
    for name, each in about.items():
        if "not_measured" in each:
            table.add_row(name, "not measured", "", "", "")
            continue
        found = outcome.overall(name)
        numbers = [each["num_videos"], each["num_refused"], each["num_failed"]]
        table.add_row(name, "-" if found is None else str(found), *map(str, numbers))
    for name, value in outcome.totals().items():
        table.add_row(name, f"{value:.4f}", "", "", "")
    return table


def _tell_missing(missing: Mapping[str, int], console: Console) -> None:
    for name, number in missing.items():
        if number:
            console.print(
                f"{name}: {number} videos of VBench's suite are missing; the value is that of the others",
                style="yellow", markup=False,
            )  # fmt: skip


def _tell_end(outcome: Outcome, folder: Path, console: Console) -> None:
    for name, why in outcome.unmeasured.items():
        console.print(f"{DIMENSIONS[name].title} was not measured: {why}", style="yellow", markup=False)
    if outcome.failed:
        console.print(f"{len(outcome.failed)} measurements failed; the same command tries them again", markup=False)
    console.print(f"report {folder / 'report.html'}, summary {folder / SUMMARY_FILE}", markup=False, soft_wrap=True)


def check_mode(mode: str) -> None:
    """Refuse VBench's long mode. Raises: SettingsError."""
    if mode != MODE:
        raise SettingsError(
            f"--mode {mode}: VBench's mode for long videos (cuts, clips of 2 s, DINOv2 and DreamSim between clips) is "
            f"not implemented; expected {MODE}, which measures each video as a whole. Scores of the two modes differ"
        )
