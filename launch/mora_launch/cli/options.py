"""Arguments and options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mora_launch.terminal import terminal

console = terminal()
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
config_argument = click.argument("config", type=FILE)
changes_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of the config, for example training.num_steps=4; repeatable.",
)
checkpoint_option = click.option(
    "--checkpoint",
    metavar="RUN[:STEP]",
    help="Use the trained weights and z of a run instead of the config's models; of a LoRA run, its adapters on top.",
)
evaluation_option = click.option(
    "--config",
    default=Path("configs/evaluation.yaml"),
    type=FILE,
    show_default=True,
    help="Config with the metrics: their weights, devices and numbers of servers.",
)
run_option = click.option("--run", type=FOLDER, help="Run directory.  [default: a new one in runs/]")
run_argument = click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
newest_run_argument = click.argument(
    "run", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[RUN]"
)


def with_checkpoint(changes: tuple[str, ...], checkpoint: str | None) -> tuple[str, ...]:
    """Append `--checkpoint` to the changes, as a change of `serving.checkpoint`."""
    if checkpoint is None:
        return changes
    return (*changes, f"serving.checkpoint={json.dumps(str(Path(checkpoint).absolute()))}")


def check_resume(run: Path | None, resume: bool) -> None:
    """Refuse `--resume` without `--run`."""
    if resume and run is None:
        raise click.UsageError("--resume needs --run, the directory of the run to continue")
