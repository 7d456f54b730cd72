"""`mora checkpoint list`, `verify` and `export`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import console, run_argument

_STEP = click.option("--step", type=int, help="Step of the checkpoint.  [default: the committed one]")


@click.group()
def checkpoint() -> None:
    """List, verify and export the checkpoints of a run."""


@checkpoint.command(name="list")
@run_argument
def checkpoint_list(run: Path) -> None:
    """List the complete checkpoints of RUN and mark the one that a resume starts from."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    console.print(Checkpoints.of_run(run).table())


@checkpoint.command(name="verify")
@run_argument
@_STEP
def checkpoint_verify(run: Path, step: int | None) -> None:
    """Compare every file of a checkpoint with its manifest; exit with 1 if one differs."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    checkpoints = Checkpoints.of_run(run)
    info = checkpoints.find(step)
    console.print(f"{info.folder}: {checkpoints.verify(info)} files match their manifest")


@checkpoint.command(name="export")
@run_argument
@_STEP
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to copy to.")
@click.option("--average", is_flag=True, help="Export the moving average instead of the weights.")
def checkpoint_export(run: Path, step: int | None, output: Path, average: bool) -> None:
    """Copy each agent's weights to OUTPUT/AGENT, in the format that its library loads."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    checkpoints = Checkpoints.of_run(run)
    for folder in checkpoints.export(checkpoints.find(step), output, average=average):
        console.print(str(folder))
