"""`mora data check`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import FILE, changes_option, console


@click.group()
def data() -> None:
    """Look at training data before a job uses it."""


@data.command(name="check")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--config", type=FILE, help="Of the job, for the clips' frames and size.  [default: configs/tiny.yaml]")
@changes_option
@click.option("-o", "--sheet", type=FILE, metavar="FILE", help="Also draw frames of every clip, as Mora reads them.")
def data_check(path: Path, config: Path | None, changes: tuple[str, ...], sheet: Path | None) -> None:
    """Read a data set as training would, and print every sample that is wrong; exit with 1 if one is.

    PATH is a folder of videos with captions, a .jsonl, .csv or .tsv file, or one video.
    """
    from mora_data.data_check import check_data

    from mora_launch.config.train_config import load_config
    from mora_launch.environments.venvs import ROOT

    loaded = load_config(config or ROOT / "configs" / "tiny.yaml", changes)
    settings = loaded.data.model_copy(update={"path": str(path)})
    all_good = check_data(settings, loaded.clip, sheet, tell=lambda line: console.print(line, markup=False))
    sys.exit(0 if all_good else 1)
