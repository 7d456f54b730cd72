"""`mora generate`."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.core import ParameterSource

from mora_launch.cli.options import FILE, changes_option, checkpoint_option, console, with_checkpoint
from mora_launch.tasks.catalog import TASKS

_WORDS = [name.replace("_", "-") for name in TASKS]


@click.command(
    help=f"Generate a video.\n\nTASK is {', '.join(_WORDS[:-1])} or {_WORDS[-1]}.",
    epilog='Example: ./mora generate text-to-video --config configs/shapes.yaml --prompt "a red circle" -o out.mp4',
)
@click.argument("task", required=False, type=click.Choice(_WORDS), metavar="TASK")
@click.option("--prompt", default="", help="What the video shows, or how to change it.")
@click.option("--image", type=FILE, help="First frame for image-to-video.")
@click.option("--video", "videos", multiple=True, type=FILE, help="Input video; give it twice for connect.")
@click.option(
    "-o", "--output", required=True, type=FILE, help="Output file: .mp4, .webm, .gif, or .png for the first frame."
)
@click.option(
    "--config", default=Path("configs/tiny.yaml"), type=FILE, show_default=True, help="Config with models and devices."
)
@changes_option
@checkpoint_option
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--seconds", type=float, help="Length of the generated part.  [default: one clip of the model]")
@click.option(
    "--strength",
    type=float,
    help="Strength of the change in edit and simulate, above 0, at most 1; edit_image takes none.  [default: config]",
)
@click.option("--steps", type=int, help="Number of denoising steps.  [default: config]")
@click.option("--guidance", type=float, help="Guidance scale.  [default: config]")
@click.option("--negative-prompt", help="What the result should not show.  [default: the agents' options]")
@click.option("--no-enhance", is_flag=True, help="Use the prompt as given, without the prompt agent.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Size of the output.  [default: the model's]")
@click.option("--fps", type=float, help="Frames per second of the output.  [default: the config's clip.fps]")
@click.option("--codec", help="Video codec: libx264 or mpeg4 for mp4, libvpx-vp9 or libvpx for webm.")
@click.option("--lora", metavar="NAME[:SCALE]", help="LoRA adapters of the config's serving.adapters; scale 0 to 1.")
@click.option("--review", is_flag=True, help="Ask after each stage; keep the session in OUTPUT.review to resume it.")
@click.option(
    "--repeat",
    type=FILE,
    metavar="FILE.json",
    help="Repeat the run that this JSON file describes. Only a language model named by --config is asked.",
)
def generate(
    task: str | None, prompt: str, image: Path | None, videos: tuple[Path, ...], output: Path, config: Path,
    changes: tuple[str, ...], checkpoint: str | None, seed: int, seconds: float | None,
    strength: float | None, steps: int | None,
    guidance: float | None, negative_prompt: str | None, no_enhance: bool, size: str | None, fps: float | None,
    codec: str | None, lora: str | None, review: bool, repeat: Path | None,
) -> None:  # fmt: skip
    """Generate a video, or repeat a run."""
    from mora_launch.config.train_config import load_config
    from mora_launch.generation.command import GenerateOptions
    from mora_launch.generation.command import generate as run_generate
    from mora_launch.generation.repeated_run import RepeatedRun

    if repeat is not None:
        _check_alone(("repeat", "output", "config"))
        run = RepeatedRun.read(repeat, lambda: load_config(config, ()))
        run.show(repeat, console)
        os.environ["HF_HUB_OFFLINE"] = "1"  # a stranger's file must not choose models to download
        run_generate(
            run.options, run.config, output, console, expected_inputs=run.inputs, expected_lora=run.lora_sha256,
            before=run.stages,
        )  # fmt: skip
        return
    if task is None:
        raise click.UsageError("give a TASK, or --repeat FILE.json")
    options = GenerateOptions(
        task.replace("-", "_"), prompt, seed, None if image is None else str(image.absolute()),
        tuple(str(video.absolute()) for video in videos), seconds, strength, steps, guidance, not no_enhance, size, fps,
        codec, negative_prompt, lora,
    )  # fmt: skip
    changes = with_checkpoint(changes, checkpoint)
    session = output.absolute().with_name(output.name + ".review") if review else None
    run_generate(options, load_config(config, changes), output, console, session_folder=session)


def _check_alone(allowed: tuple[str, ...]) -> None:
    """Refuse any option outside `allowed` on the command line; the first of these replaces all others."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name not in allowed:
            raise click.UsageError(
                f"{parameter.opts[0]} does not go with --{allowed[0]}, which repeats a run exactly; leave one out"
            )
