"""`mora train`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import changes_option, check_resume, config_argument, console, run_option


@click.command()
@config_argument
@changes_option
@run_option
@click.option("--resume", is_flag=True, help="Continue from the last committed checkpoint of --run.")
@click.option("--dry-run", is_flag=True, help="Print device and memory of every role without starting any.")
def train(config: Path, changes: tuple[str, ...], run: Path | None, resume: bool, dry_run: bool) -> None:
    """Train the image agent and the video agent jointly.

    This is algorithm 1 of the paper.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.jobs.training_job import train as run_training

    check_resume(run, resume)
    loaded = load_config(config, changes)
    sys.exit(run_training(loaded, run=run, resume=resume, dry_run=dry_run, console=console))
