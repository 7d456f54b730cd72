"""`mora tables`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import FOLDER, changes_option, console, evaluation_option


@click.command(epilog="Example: ./mora tables runs/shapes -o runs/tables")
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="RUN..."
)
@evaluation_option
@changes_option
@click.option("-o", "--output", required=True, type=FOLDER, help="Folder for the tables.")
def tables(runs: tuple[Path, ...], config: Path, changes: tuple[str, ...], output: Path) -> None:
    """Write tables 1, 2 and 5 of the paper, with the paper's figures and rows of yours.

    RUN is the folder of an evaluation, or a run whose samples are then evaluated with the metrics of --config.
    """
    from mora_launch.evaluation.config import load_evaluation
    from mora_launch.evaluation.tables_command import tables as write_tables

    sys.exit(write_tables(runs, output, load_evaluation(config, changes), console))
