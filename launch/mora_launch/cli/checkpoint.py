"""`mora checkpoint list`, `verify` and `export`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import console, run_argument

_STEP = click.option("--step", type=int, help="Which checkpoint, by its number of steps; by default the committed one.")


@click.group()
def checkpoint() -> None:
    """The checkpoints of a run: look at them, check them, take weights out."""


@checkpoint.command(name="list")
@run_argument
def checkpoint_list(run: Path) -> None:
    """Show every whole checkpoint of RUN, and from which one a resume starts."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    console.print(Checkpoints.of_run(run).table())


@checkpoint.command(name="verify")
@run_argument
@_STEP
def checkpoint_verify(run: Path, step: int | None) -> None:
    """Compare every file of a checkpoint with its manifest; exit code 1 where one differs."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    checkpoints = Checkpoints.of_run(run)
    info = checkpoints.find(step)
    console.print(f"{info.folder}: {checkpoints.verify(info)} files are as they were written")


@checkpoint.command(name="export")
@run_argument
@_STEP
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to copy to.")
@click.option("--average", is_flag=True, help="The moving average instead of the weights themselves.")
def checkpoint_export(run: Path, step: int | None, output: Path, average: bool) -> None:
    """Copy each agent's weights to OUTPUT/AGENT, in the form that its own library loads."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    checkpoints = Checkpoints.of_run(run)
    for folder in checkpoints.export(checkpoints.find(step), output, average=average):
        console.print(str(folder))
