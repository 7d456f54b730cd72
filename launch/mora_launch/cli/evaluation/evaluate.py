"""`mora evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import (
    FILE,
    FOLDER,
    changes_option,
    checkpoint_option,
    console,
    evaluation_option,
    with_checkpoint,
)
from mora_launch.evaluation.suite.dimensions import SUITES
from mora_launch.evaluation.suite.video_file import VIDEOS
from mora_launch.tasks.catalog import TASKS


@click.command(epilog="Example: ./mora evaluate videos --suite quality -o runs/evaluation")
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path), metavar="[SOURCE...]")
@click.option(
    "--suite", type=click.Choice(list(SUITES)), default="quality", show_default=True,
    help="quality: the six dimensions of video quality; all: also styles, flickering and overall consistency.",
)  # fmt: skip
@click.option("--dimension", "dimensions", multiple=True, help="Measure this dimension instead of a suite; repeatable.")
@evaluation_option
@changes_option
@click.option("-o", "--output", required=True, type=FOLDER, help="Folder of the results, new or to be continued.")
@click.option("--prompts", type=FILE, metavar="FILE.json", help="Prompts of the videos: a JSON object {file: prompt}.")
@click.option(
    "--prompt-set", type=click.Choice(["auto", "vbench", "custom"]), default="auto", show_default=True,
    help="vbench: a dimension counts only the videos of its own prompts; custom: all; auto: by the files' names.",
)  # fmt: skip
@click.option(
    "--generate", "model", type=FILE, metavar="CONFIG",
    help="First make the videos of VBench's suite with this config, in OUTPUT/videos; they are then measured.",
)  # fmt: skip
@checkpoint_option
@click.option("--seed", type=int, default=0, show_default=True, help="With --generate: all seeds follow from it.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="With --generate: size of the videos.  [default: the model's]")
@click.option("--limit", type=click.IntRange(min=1), help="With --generate: make only so many videos.  [default: all]")
@click.option("--no-measure", is_flag=True, help="With --generate: make the videos and measure nothing.")
@click.option("--mode", default="short", show_default=True, help="short: a video is measured as a whole.")
@click.option("--json", "json_file", type=FILE, metavar="FILE.json", help="Also write the summary here.")
@click.option(
    "--task", type=click.Choice([name.replace("_", "-") for name in TASKS]), default="text-to-video", show_default=True,
    help="What made the videos: it decides in which of the paper's tables they are.",
)  # fmt: skip
@click.option(
    "--pairs",
    type=FILE,
    metavar="FILE.json",
    help="What the videos were made from, {output: input}: adds TCON, Tmean or VideoTI, by --task.",
)
@click.option("--name", default="mora", show_default=True, help="Name of the model, in VBench's files.")
def evaluate(
    sources: tuple[Path, ...], suite: str, dimensions: tuple[str, ...], config: Path, changes: tuple[str, ...],
    output: Path, prompts: Path | None, prompt_set: str, model: Path | None, checkpoint: str | None, seed: int,
    size: str | None, limit: int | None, no_measure: bool, mode: str, json_file: Path | None, task: str,
    pairs: Path | None, name: str,
) -> None:  # fmt: skip
    """Measure the quality of videos with VBench's metrics.

    SOURCE is a video, a folder of videos (with PROMPT-INDEX.mp4 as names, or --prompts), or a run, whose samples are
    compared over its steps. Results are stored as they are made: the same command continues after an interruption.
    Exit code 5 means that some measurements failed and can be tried again.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.evaluation.command import check_mode
    from mora_launch.evaluation.command import evaluate as run_evaluate
    from mora_launch.evaluation.config import load_evaluation
    from mora_launch.evaluation.evaluation import EvaluateOptions
    from mora_launch.evaluation.generate_command import generate
    from mora_launch.evaluation.suite.dimensions import chosen_dimensions
    from mora_launch.generation.command import output_size

    check_mode(mode)
    if bool(sources) == (model is not None):
        raise click.UsageError("give a SOURCE, or --generate CONFIG to make the videos of VBench's suite")
    chosen = chosen_dimensions(suite, dimensions)
    loaded = load_evaluation(config, changes)
    if model is not None:
        made = load_config(model, with_checkpoint((), checkpoint))
        if (code := generate(made, chosen, output, seed, limit, console, output_size(size))) != 0 or no_measure:
            sys.exit(code)
        sources = (output / VIDEOS,)
    options = EvaluateOptions(
        sources, suite, chosen, output, prompts, prompt_set, json_file, name, task, pairs  # type: ignore[arg-type]
    )  # fmt: skip
    sys.exit(run_evaluate(options, loaded, console))
