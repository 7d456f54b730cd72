"""`mora status`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import console, newest_run_argument


@click.command()
@newest_run_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(run: Path | None, as_json: bool) -> None:
    """Show what every process of RUN does (default: the newest).

    Shows generation, step, heartbeat, memory, and leases on tensors.
    """
    from mora_launch.jobs.status import find_run, show_status

    show_status(find_run(run), console, as_json=as_json)
