"""`mora review`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import console


@click.command(epilog="Example: ./mora review runs/tiny-rounds --web")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--reviewer", envvar="USER", default="reviewer", show_default=True, help="Name recorded with each decision."
)
@click.option("--web", is_flag=True, help="Serve a page instead of asking in the terminal.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the page.")
@click.option("--port", type=int, default=7861, show_default=True, help="Port of the page.")
@click.option(
    "--statistics", "only_statistics", is_flag=True, help="Show how often judges and reviewers agree, then exit."
)
def review(run: Path, reviewer: str, web: bool, host: str, port: int, only_statistics: bool) -> None:
    """Decide the candidate sets on which the judges disagree.

    RUN is the run of `mora synthesize`. Several people can review it at once; each set is shown to one of them.
    """
    from mora_launch.rounds.review.command import review as run_review

    sys.exit(run_review(run.absolute(), reviewer, (host, port) if web else None, only_statistics, console))
