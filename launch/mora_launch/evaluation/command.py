"""`mora evaluate`: measures videos with the metrics of a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mora_runtime.errors import SettingsError, StorageError
from mora_runtime.files.fresh_file import write_fresh
from rich.console import Console
from rich.table import Table

from mora_launch.evaluation.config import EvaluationConfig
from mora_launch.evaluation.evaluation import EvaluateOptions, Evaluation
from mora_launch.evaluation.output.report import write_report
from mora_launch.evaluation.output.summary import MODE, Outcome, summary
from mora_launch.evaluation.output.vbench_files import leaderboard_zip, vbench_results
from mora_launch.evaluation.suite.dimensions import KNOWN

EXIT_INCOMPLETE = 5  # something failed that the next start tries again
EXIT_INTERRUPTED = 130
SUMMARY_FILE = "summary.json"


def evaluate(options: EvaluateOptions, config: EvaluationConfig, console: Console) -> int:
    """Measure what has no result yet, and write summary, VBench's files and the report.

    Returns:
        0; 5 if something failed that the same command tries again; 130 when stopped by Ctrl-C.

    Raises:
        MoraError: refused, or no metric can be used.
    """
    evaluation = Evaluation(options, config, console)
    _tell_missing(evaluation.outcome.sources.missing, console)
    try:
        outcome = evaluation.run()
    except KeyboardInterrupt:
        console.print("stopped; the same command continues", markup=False)
        return EXIT_INTERRUPTED
    _write_all(options, outcome)
    console.print(overall_table(outcome))
    _tell_end(outcome, options.output, console)
    return 0 if evaluation.is_complete else EXIT_INCOMPLETE


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
    lacking = [f"{number} of {name}" for name, number in missing.items() if number]
    if lacking:
        console.print(
            f"videos of VBench's suite are missing ({', '.join(lacking)}); values are those of the others",
            style="yellow", markup=False,
        )  # fmt: skip


def _tell_end(outcome: Outcome, folder: Path, console: Console) -> None:
    for name, why in outcome.unmeasured.items():
        console.print(f"{KNOWN[name].title} was not measured: {why}", style="yellow", markup=False)
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
