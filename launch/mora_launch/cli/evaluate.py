"""`mora evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import FILE, FOLDER, changes_option, console
from mora_launch.evaluation.suite.dimensions import SUITES


@click.command(epilog="Example: ./mora evaluate videos --suite quality -o runs/evaluation")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE...")
@click.option(
    "--suite", type=click.Choice(list(SUITES)), default="quality", show_default=True,
    help="quality: the six dimensions of video quality; all: also styles, flickering and overall consistency.",
)  # fmt: skip
@click.option("--dimension", "dimensions", multiple=True, help="Measure this dimension instead of a suite; repeatable.")
@click.option(
    "--config", default=Path("configs/evaluation.yaml"), type=FILE, show_default=True,
    help="Config with the metrics: their weights, devices and numbers of servers.",
)  # fmt: skip
@changes_option
@click.option("-o", "--output", required=True, type=FOLDER, help="Folder of the results, new or to be continued.")
@click.option("--prompts", type=FILE, metavar="FILE.json", help="Prompts of the videos: a JSON object {file: prompt}.")
@click.option(
    "--prompt-set", type=click.Choice(["auto", "vbench", "custom"]), default="auto", show_default=True,
    help="vbench: a dimension counts only the videos of its own prompts; custom: all; auto: by the files' names.",
)  # fmt: skip
@click.option("--mode", default="short", show_default=True, help="short: a video is measured as a whole.")
@click.option("--json", "json_file", type=FILE, metavar="FILE.json", help="Also write the summary here.")
@click.option("--name", default="mora", show_default=True, help="Name of the model, in VBench's files.")
def evaluate(
    sources: tuple[Path, ...], suite: str, dimensions: tuple[str, ...], config: Path, changes: tuple[str, ...],
    output: Path, prompts: Path | None, prompt_set: str, mode: str, json_file: Path | None, name: str,
) -> None:  # fmt: skip
    """Measure the quality of videos with VBench's metrics.

    SOURCE is a video, a folder of videos (with PROMPT-INDEX.mp4 as names, or --prompts), or a run, whose samples are
    compared over its steps. Results are stored as they are made: the same command continues after an interruption.
    Exit code 5 means that some measurements failed and can be tried again.
    """
    from mora_launch.evaluation.command import EvaluateOptions, check_mode
    from mora_launch.evaluation.command import evaluate as run_evaluate
    from mora_launch.evaluation.config import load_evaluation
    from mora_launch.evaluation.suite.dimensions import chosen_dimensions

    check_mode(mode)
    options = EvaluateOptions(
        sources, suite, chosen_dimensions(suite, dimensions), output, prompts, prompt_set, json_file, name  # type: ignore[arg-type]
    )  # fmt: skip
    sys.exit(run_evaluate(options, load_evaluation(config, changes), console))
