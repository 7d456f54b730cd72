"""`mora profile`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import FOLDER, changes_option, config_argument, console


@click.command(epilog="Example: ./mora profile configs/tiny.yaml --steps 4 -o profile")
@config_argument
@click.option("--steps", type=click.IntRange(min=1), default=4, show_default=True, help="Training steps to run.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=FOLDER,
    help="Folder for trace.json.gz, summary.json, summary.html and the run.",
)
@changes_option
@click.option(
    "--torch-profiler/--no-torch-profiler",
    default=None,
    help="Also record the last step with torch's profiler; its time does not count.  [default: on if --steps > 1]",
)
@click.option(
    "--try",
    "tries",
    is_flag=True,
    help="Run the job also with the first advice, and report the step before and after; up to three advices.",
)
def profile(
    config: Path, steps: int, output: Path, changes: tuple[str, ...], torch_profiler: bool | None, tries: bool
) -> None:
    """Train for a few steps and show where the time goes.

    Shows bubble, critical path, bytes and what to change first. The job is that of `mora train`, without samples. The
    first of several steps is warm-up and does not count.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.profiling.command import profile as run_profile

    if torch_profiler and steps == 1:
        raise click.UsageError(
            "--torch-profiler needs --steps 2 or more, because the step that it records does not count"
        )
    if tries and steps == 1:
        raise click.UsageError("--try needs --steps 2 or more, because the first step is warm-up")
    loaded = load_config(config, ["samples.enabled=false", *changes, f"training.num_steps={steps}"])
    with_torch = steps > 1 if torch_profiler is None else torch_profiler
    sys.exit(run_profile(loaded, output, torch_profiler=with_torch, tries=tries, console=console))
