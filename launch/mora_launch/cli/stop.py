"""`mora stop`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import console, newest_run_argument


@click.command()
@newest_run_argument
@click.option("--now", is_flag=True, help="End at once, without a last checkpoint.")
@click.option("--timeout", "timeout_s", type=float, default=120.0, show_default=True, help="Seconds to wait.")
def stop(run: Path | None, now: bool, timeout_s: float) -> None:
    """Stop RUN (default: the newest) as Ctrl-C in its terminal does.

    Training ends after the present step, with a checkpoint; a server once requests under way are answered, at
    most 10 s later; its video jobs are cancelled.
    """
    from mora_launch.jobs.status import find_run, stop_run

    stop_run(find_run(run), console, now=now, timeout_s=timeout_s)
