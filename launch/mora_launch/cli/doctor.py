"""`mora doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import console, newest_run_argument


@click.command()
@newest_run_argument
def doctor(run: Path | None) -> None:
    """Check this machine and explain why RUN ended.

    Prints a fix for each problem, and exits with 1 if there is one.
    """
    from mora_launch.jobs.doctor import examine

    sys.exit(examine(run, console))
