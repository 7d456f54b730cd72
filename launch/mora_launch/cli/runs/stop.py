"""`mora stop`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import console, newest_run_argument


@click.command(epilog="Example: ./mora stop runs/shapes")
@newest_run_argument
@click.option("--now", is_flag=True, help="Stop immediately, without a last checkpoint.")
@click.option(
    "--timeout", "timeout_s", type=float, default=120.0, show_default=True, help="Seconds to wait for the end."
)
def stop(run: Path | None, now: bool, timeout_s: float) -> None:
    """Stop RUN as Ctrl-C in its terminal does (default: the only run that is alive).

    Training ends with a checkpoint after the current step. A server takes no new work, and ends when the accepted work
    is done, at the latest after its `--shutdown-timeout`.
    """
    from mora_launch.jobs.status import find_run_to_stop, stop_run

    stop_run(find_run_to_stop(run), console, now=now, timeout_s=timeout_s)
