"""`mora train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mora_launch.cli.options import FILE, changes_option, check_resume, console, run_option

if TYPE_CHECKING:
    from mora_launch.config.train_config import TrainConfig


@click.command(epilog="Example: ./mora train configs/shapes.yaml --set training.num_steps=40 --run runs/shapes")
@click.argument("config", type=FILE, required=False)
@changes_option
@run_option
@click.option("--resume", is_flag=True, help="Continue --run from its last checkpoint, with its own configuration.")
@click.option("--dry-run", is_flag=True, help="Print the plan: memory of every device, host, time. Starts nothing.")
@click.option("--json", "json_file", metavar="FILE", type=FILE, help="With --dry-run: also write the plan there.")
@click.option("--gpu", metavar="NAME", help="With --dry-run: plan for H100, H200 or A100. Default: the machine's.")
def train(
    config: Path | None,
    changes: tuple[str, ...],
    run: Path | None,
    resume: bool,
    dry_run: bool,
    json_file: Path | None,
    gpu: str | None,
) -> None:
    """Train the agents of a chain jointly.

    This is algorithm 1 of the paper. With --resume, CONFIG can be left out.
    """
    from mora_launch.jobs.training_job import DryRun
    from mora_launch.jobs.training_job import train as run_training

    check_resume(run, resume)
    if not dry_run and (json_file is not None or gpu is not None):
        raise click.UsageError("--json and --gpu describe the plan of --dry-run; give it too")
    plan = DryRun(gpu, json_file) if dry_run else None
    loaded = _configuration(config, changes, run if resume else None)
    sys.exit(run_training(loaded, run=run, resume=resume, dry_run=plan, console=console))


def _configuration(config: Path | None, changes: tuple[str, ...], resumed: Path | None) -> TrainConfig:
    """The configuration to train with; prints in what it differs from the one of the resumed run."""
    from mora_launch.config.train_config import load_config
    from mora_launch.resuming.resumed_config import resumed_config

    if resumed is None:
        if config is None:
            raise click.UsageError("Missing argument 'CONFIG'. Only --resume can do without it.")
        return load_config(config, changes)
    loaded, changed = resumed_config(resumed, config, changes)
    for difference in changed:
        console.print(f"changed since the last start: {difference}", markup=False)
    return loaded
