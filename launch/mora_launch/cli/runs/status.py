"""`mora status`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import console, newest_run_argument


@click.command(epilog="Example: ./mora status runs/shapes")
@newest_run_argument
@click.option("--all", "shows_all", is_flag=True, help="Show every run of yours that is alive.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --all, a list.")
def status(run: Path | None, shows_all: bool, as_json: bool) -> None:
    """Show what every process of RUN does (default: the newest run that is alive, else the newest in runs/).

    Shows generation, step, heartbeat, memory, and leases on tensors.
    """
    from mora_launch.jobs.status import find_run, show_all, show_status

    if shows_all:
        if run is not None:
            raise click.UsageError("--all takes no RUN")
        show_all(console, as_json=as_json)
        return
    show_status(find_run(run), console, as_json=as_json)
