"""`mora train`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import FILE, changes_option, check_resume, config_argument, console, run_option


@click.command()
@config_argument
@changes_option
@run_option
@click.option("--resume", is_flag=True, help="Continue from the last committed checkpoint of --run.")
@click.option("--dry-run", is_flag=True, help="Print the plan: memory of every device, host, time. Starts nothing.")
@click.option("--json", "json_file", metavar="FILE", type=FILE, help="With --dry-run: also write the plan there.")
@click.option("--gpu", metavar="NAME", help="With --dry-run: plan for H100, H200 or A100. Default: the machine's.")
def train(
    config: Path,
    changes: tuple[str, ...],
    run: Path | None,
    resume: bool,
    dry_run: bool,
    json_file: Path | None,
    gpu: str | None,
) -> None:
    """Train the agents of a chain jointly.

    This is algorithm 1 of the paper.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.jobs.training_job import DryRun
    from mora_launch.jobs.training_job import train as run_training

    check_resume(run, resume)
    if not dry_run and (json_file is not None or gpu is not None):
        raise click.UsageError("--json and --gpu describe the plan of --dry-run; give it too")
    plan = DryRun(gpu, json_file) if dry_run else None
    loaded = load_config(config, changes)
    sys.exit(run_training(loaded, run=run, resume=resume, dry_run=plan, console=console))
