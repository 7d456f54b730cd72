"""`mora synthesize`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import changes_option, check_resume, config_argument, console, run_option


@click.command(epilog="Example: ./mora synthesize configs/tiny-rounds.yaml --run runs/rounds")
@config_argument
@changes_option
@run_option
@click.option("--resume", is_flag=True, help="Continue the rounds of --run.")
def synthesize(config: Path, changes: tuple[str, ...], run: Path | None, resume: bool) -> None:
    """Train without data, in rounds.

    A round writes prompts, generates candidate videos, lets judges rank them, and trains on the chosen ones.
    Exit code 4 means that the judges disagree: decide with `mora review RUN`, or set synthesis.review=off.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.rounds.command import synthesize as run_rounds

    check_resume(run, resume)
    sys.exit(run_rounds(load_config(config, changes), run=run, resume=resume, console=console))
