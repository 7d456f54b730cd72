"""`mora generate`."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.core import ParameterSource

from mora_launch.cli.options import FILE, changes_option, checkpoint_option, console, with_checkpoint
from mora_launch.environments import venvs

_TASKS = ("text-to-video", "image-to-video", "extend", "edit", "connect", "simulate")


@click.command()
@click.argument("task", required=False, type=click.Choice(_TASKS))
@click.option("--prompt", default="", help="What should be seen, or how to change it.")
@click.option("--image", type=FILE, help="First frame, for image-to-video.")
@click.option("--video", "videos", multiple=True, type=FILE, help="Input video; twice for connect.")
@click.option("-o", "--output", required=True, type=FILE, help="NAME.mp4, .webm, .gif, or .png (the first frame).")
@click.option("--config", default=Path("configs/tiny.yaml"), type=FILE, show_default=True, help="Models and devices.")
@changes_option
@checkpoint_option
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--seconds", type=float, help="Length of what is generated; by default one clip of the model.")
@click.option("--strength", type=float, help="Of image-to-image in edit and simulate, over 0 to 1.")
@click.option("--steps", type=int, help="Denoising steps, instead of the config's.")
@click.option("--guidance", type=float, help="Guidance scale, instead of the config's.")
@click.option("--no-enhance", is_flag=True, help="Take the prompt as it is.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Of the output; by default the model's.")
@click.option("--fps", type=float, help="Of the output; by default the config's clip.fps.")
@click.option("--codec", help="libx264 or mpeg4 in mp4, libvpx-vp9 or libvpx in webm.")
@click.option("--review", is_flag=True, help="Ask after each stage; the session lies in OUTPUT.review, and is resumed.")
@click.option(
    "--repeat",
    type=FILE,
    metavar="FILE.json",
    help="Do the very run again whose JSON this is. A language model is asked only where --config names one.",
)
def generate(
    task: str | None, prompt: str, image: Path | None, videos: tuple[Path, ...], output: Path, config: Path,
    changes: tuple[str, ...], checkpoint: str | None, seed: int, seconds: float | None,
    strength: float | None, steps: int | None,
    guidance: float | None, no_enhance: bool, size: str | None, fps: float | None, codec: str | None,
    review: bool, repeat: Path | None,
) -> None:  # fmt: skip
    """Make a video: text-to-video, image-to-video, extend, edit, connect or simulate."""
    from mora_launch.config.train_config import load_config
    from mora_launch.generation.command import GenerateOptions
    from mora_launch.generation.command import generate as run_generate
    from mora_launch.generation.repeated_run import RepeatedRun

    if repeat is not None:
        _check_alone(("repeat", "output", "config"))
        is_given = click.get_current_context().get_parameter_source("config") is ParameterSource.COMMANDLINE
        own = config if is_given or config.exists() else venvs.ROOT / config
        run = RepeatedRun.read(repeat, lambda: load_config(own, ()))
        run.show(repeat, console)
        os.environ["HF_HUB_OFFLINE"] = "1"  # the file names models: none is fetched because it says so
        run_generate(run.options, run.config, output, console, expected_inputs=run.inputs, before=run.stages)
        return
    if task is None:
        raise click.UsageError("give a TASK, or --repeat FILE.json")
    options = GenerateOptions(
        task.replace("-", "_"), prompt, seed, None if image is None else str(image.absolute()),
        tuple(str(video.absolute()) for video in videos), seconds, strength, steps, guidance, not no_enhance, size, fps,
        codec,
    )  # fmt: skip
    changes = with_checkpoint(changes, checkpoint)
    session = output.absolute().with_name(output.name + ".review") if review else None
    run_generate(options, load_config(config, changes), output, console, session_folder=session)


def _check_alone(allowed: tuple[str, ...]) -> None:
    """Refuse what was given beside an option that says it all."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name not in allowed:
            raise click.UsageError(
                f"{parameter.opts[0]} does not go with --{allowed[0]}, which does the very run again; leave one out"
            )
