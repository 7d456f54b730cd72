"""`mora data check`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import FILE, changes_option, console


@click.group()
def data() -> None:
    """Look at training data before a job uses it."""


@data.command(name="check", epilog="Example: ./mora data check clips.jsonl --sheet sheet.png")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--config", default=Path("configs/tiny.yaml"), type=FILE, show_default=True, help="Of the job, for the clips' size."
)
@changes_option
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write samples and faults to this file.")
@click.option("-o", "--sheet", type=FILE, metavar="PNG", help="Draw frames of every clip, as training reads them.")
@click.option("--frames", type=FILE, metavar="DIR", help="Write each line's frames, as a player shows them.")
def data_check(
    path: Path, config: Path, changes: tuple[str, ...], json_file: Path | None, sheet: Path | None,
    frames: Path | None,
) -> None:  # fmt: skip
    """Read a data set as training would, and print every sample and every fault; exit with 2 if there is a fault.

    PATH is a folder of videos with captions, a .jsonl, .csv or .tsv file, or one video or picture.
    """
    from mora_data.checking.data_check import check_data
    from mora_data.checking.report import draw_sheet, report_lines, write_json

    from mora_launch.config.train_config import load_config

    loaded = load_config(config, changes)
    found = check_data(loaded.data.model_copy(update={"path": str(path)}), loaded.clip, frames)
    for line in report_lines(found, loaded.clip):
        console.print(line, markup=False, soft_wrap=True)
    if json_file is not None:
        write_json(found, json_file)
    if sheet is not None and (note := draw_sheet(found, sheet)):
        console.print(note, markup=False, soft_wrap=True)
    sys.exit(2 if found.faults else 0)
