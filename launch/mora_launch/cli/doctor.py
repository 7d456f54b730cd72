"""`mora doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import console, newest_run_argument


@click.command()
@newest_run_argument
def doctor(run: Path | None) -> None:
    """Say what is wrong and how to mend it: with this machine, and with RUN, why it ended. Exit code 1 where something
    is."""
    from mora_launch.jobs.doctor import examine

    sys.exit(examine(run, console))
