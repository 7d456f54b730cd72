"""`mora doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import FILE, console, newest_run_argument


@click.command(epilog="Example: ./mora doctor --config configs/tiny.yaml")
@newest_run_argument
@click.option("--config", type=FILE, help="Also print interpreter, prefix and torch of every role of this config.")
def doctor(run: Path | None, config: Path | None) -> None:
    """Check this machine and explain why RUN ended.

    Prints a fix for each problem, and exits with 1 if there is one. Of a RUN it also prints interpreter, prefix and
    torch of every role.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.jobs.doctor import examine

    sys.exit(examine(run, None if config is None else load_config(config, ()), console))
