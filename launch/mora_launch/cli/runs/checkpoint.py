"""`mora checkpoint list`, `verify`, `keep` and `export`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import FILE, console, run_argument

_STEP = click.option("--step", type=int, help="Step of the checkpoint.  [default: the committed one]")


@click.group()
def checkpoint() -> None:
    """List, verify, keep and export the checkpoints of a run."""


@checkpoint.command(name="list", epilog="Example: ./mora checkpoint list runs/shapes")
@run_argument
def checkpoint_list(run: Path) -> None:
    """List the complete checkpoints of RUN: which one a resume starts from, which are kept or in use."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    console.print(Checkpoints.of_run(run).table())


@checkpoint.command(name="verify", epilog="Example: ./mora checkpoint verify runs/shapes")
@run_argument
@_STEP
def checkpoint_verify(run: Path, step: int | None) -> None:
    """Compare every file of a checkpoint with its manifest; exit with 1 if one differs."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    checkpoints = Checkpoints.of_run(run)
    info, pin = checkpoints.pinned(step)
    with pin:
        console.print(f"{info.folder}: {checkpoints.verify(info)} files match their manifest")


@checkpoint.command(name="keep", epilog="Example: ./mora checkpoint keep runs/shapes:40")
@click.argument("named", metavar="RUN[:STEP]")
@click.option("--release", "is_released", is_flag=True, help="Let training remove it again.")
def checkpoint_keep(named: str, is_released: bool) -> None:
    """Keep a checkpoint: training never removes it, however many it writes.  [default: the committed one]"""
    from mora_trainer.checkpoint.pin import keep, release

    from mora_launch.checkpoints.run_checkpoints import Checkpoints
    from mora_launch.checkpoints.trained_model import named_checkpoint

    run, step = named_checkpoint(named)
    checkpoints = Checkpoints.of_run(run)
    folder = checkpoints.find(step).folder
    (release if is_released else keep)(checkpoints.folder, folder)
    console.print(f"{folder}: {'released, training may remove it' if is_released else 'kept'}", markup=False)


@checkpoint.command(name="export", epilog="Example: ./mora checkpoint export runs/shapes -o exported")
@run_argument
@_STEP
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to copy to.")
@click.option("--average", is_flag=True, help="Export the moving average instead of the weights.")
@click.option(
    "--format",
    "chosen",
    type=click.Choice(["native", "diffusers-lora", "peft", "merged"]),
    default="native",
    show_default=True,
    help="native: as the checkpoint has them. For LoRA runs: diffusers-lora, the file that load_lora_weights reads; "
    "peft, the folder that PeftModel.from_pretrained reads; merged, whole weights.",
)
@click.option("--agent", "agents", multiple=True, metavar="NAME", help="Export only this agent; repeatable.")
@click.option("--config", type=FILE, help="Config with the models that were adapted.  [default: the run's own]")
def checkpoint_export(
    run: Path, step: int | None, output: Path, average: bool, chosen: str, agents: tuple[str, ...], config: Path | None
) -> None:
    """Copy each agent's weights to OUTPUT/AGENT, in the format that its library loads."""
    from mora_launch.checkpoints.export import Export
    from mora_launch.checkpoints.export_format import ExportFormat, adapted_agents
    from mora_launch.checkpoints.run_checkpoints import Checkpoints
    from mora_launch.config.train_config import load_config

    loaded = None if config is None else load_config(config, ())
    wanted = Export(ExportFormat(chosen), average, agents, loaded)
    checkpoints = Checkpoints.of_run(run)
    info, pin = checkpoints.pinned(step)
    with pin:
        exported = checkpoints.export(info, output, wanted)
    adapted = adapted_agents(info, wanted.part)
    for folder in exported:
        line = wanted.format.how_to_load(str(folder)) if folder.name in adapted else None
        console.print(str(folder) if line is None else f"{folder}  load it with: {line}", markup=False, soft_wrap=True)
    if wanted.format is ExportFormat.NATIVE and adapted.intersection(folder.name for folder in exported):
        told = "LoRA adapters alone; --format diffusers-lora, peft or merged writes what other libraries load"
        console.print(told, markup=False, soft_wrap=True)
