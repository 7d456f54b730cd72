"""`mora models`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import FILE, changes_option, console


@click.command()
@click.argument("config", type=FILE, default=Path("configs/tiny.yaml"))
@changes_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(config: Path, changes: tuple[str, ...], as_json: bool) -> None:
    """List the agents of CONFIG and the models that they load.

    CONFIG is configs/tiny.yaml by default.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.jobs.model_list import show_models

    show_models(load_config(config, changes), console, as_json=as_json)
