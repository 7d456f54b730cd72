"""The command line: every command parses here and works elsewhere, in modules imported only when it is called."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
from click.core import ParameterSource
from mora_runtime.errors import MoraError

from mora_launch.environments import venvs
from mora_launch.environments.venvs import ENVIRONMENTS, EnvironmentBuildError
from mora_launch.jobs.open_files import allow_open_files
from mora_launch.terminal import clean_tracebacks, show_usage_error, terminal, write_json

console = terminal()
_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_config = click.argument("config", type=_FILE)
_changes = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one value of the config, for example training.num_steps=4; may be repeated.",
)
_TASKS = ("text-to-video", "image-to-video", "extend", "edit", "connect", "simulate")
_BENCHMARKS = {
    "ipc": "tensors between processes, beside the floor and other ways",
    "train": "what the border between processes costs a step",
    "parity": "gradients across processes, compared with one process",
    "opensora": "the video model",
    "profiler_cost": "tracing, on and off",
    "judges": "how surely broken clips rank last",
    "chaos": "jobs whose processes are killed",
    "safety_cost": "what checkpoints and heartbeats cost a step",
    "rounds": "rounds that are killed and resumed, beside rounds left alone",
    "learn": "whether joint training makes the chain do what prompts say that it never saw, variants of it beside",
    "serve": "requests over HTTP beside a bare loop",
}
_checkpoint = click.option(
    "--checkpoint", metavar="RUN[:STEP]", help="Weights and z of a run, instead of the config's models."
)
_run = click.option("--run", type=_FOLDER, help="Run directory; by default a new one in runs/ of the checkout.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train and serve models that cannot share one Python environment, as one differentiable pipeline."""


@cli.command()
@_config
@_changes
@_run
@click.option("--resume", is_flag=True, help="Go on from the last committed checkpoint of --run.")
@click.option("--dry-run", is_flag=True, help="Print placement and memory of every role, start nothing.")
def train(config: Path, changes: tuple[str, ...], run: Path | None, resume: bool, dry_run: bool) -> None:
    """Train the image and the video agent jointly (paper, algorithm 1)."""
    from mora_launch.config.train_config import load_config
    from mora_launch.jobs.training_job import train as run_training

    _check_resume(run, resume)
    loaded = load_config(config, changes)
    sys.exit(run_training(loaded, run=run, resume=resume, dry_run=dry_run, console=console))


@cli.command()
@_config
@click.option("--steps", type=click.IntRange(min=1), default=4, show_default=True, help="Training steps to run.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=_FOLDER,
    help="Folder for trace.json.gz, summary.json, summary.html, and the run itself.",
)
@_changes
@click.option(
    "--torch-profiler/--no-torch-profiler",
    default=None,
    help="Record the last step with torch's profiler too; its time does not count. On by default for 2 steps or more.",
)
def profile(config: Path, steps: int, output: Path, changes: tuple[str, ...], torch_profiler: bool | None) -> None:
    """Train for a few steps and show where the time goes: bubble, critical path, bytes, what to change first.

    The job is that of `mora train` with training.num_steps=N and no samples. The first step counts as warm-up where
    there are others.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.profiling.command import profile as run_profile

    if torch_profiler and steps == 1:
        raise click.UsageError("--torch-profiler needs --steps 2 or more: the step it records does not count")
    loaded = load_config(config, ["samples.enabled=false", *changes, f"training.num_steps={steps}"])
    with_torch = steps > 1 if torch_profiler is None else torch_profiler
    sys.exit(run_profile(loaded, output, torch_profiler=with_torch, console=console))


@cli.command()
@_config
@_changes
@_run
@click.option("--resume", is_flag=True, help="Go on with the rounds of --run where they stand.")
def synthesize(config: Path, changes: tuple[str, ...], run: Path | None, resume: bool) -> None:
    """Train without data: rounds of prompts, candidate videos, judges, review, and training on what was chosen.

    Exit code 4: judges disagree and a person has to decide (`mora review RUN`), or set synthesis.review=off.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.rounds.command import synthesize as run_rounds

    _check_resume(run, resume)
    sys.exit(run_rounds(load_config(config, changes), run=run, resume=resume, console=console))


@cli.command()
@click.argument("task", required=False, type=click.Choice(_TASKS))
@click.option("--prompt", default="", help="What should be seen, or how to change it.")
@click.option("--image", type=_FILE, help="First frame, for image-to-video.")
@click.option("--video", "videos", multiple=True, type=_FILE, help="Input video; twice for connect.")
@click.option("-o", "--output", required=True, type=_FILE, help="NAME.mp4, .webm, .gif, or .png (the first frame).")
@click.option("--config", default=Path("configs/tiny.yaml"), type=_FILE, show_default=True, help="Models and devices.")
@_changes
@_checkpoint
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
    type=_FILE,
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
    changes = _with_checkpoint(changes, checkpoint)
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


@cli.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--reviewer", envvar="USER", default="reviewer", show_default=True, help="Name that decisions carry.")
@click.option("--web", is_flag=True, help="Serve a page instead of asking in the terminal.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the page; others need the link.")
@click.option("--port", type=int, default=7861, show_default=True, help="Port of the page.")
@click.option("--statistics", "only_statistics", is_flag=True, help="Show who agrees with whom, and end.")
def review(run: Path, reviewer: str, web: bool, host: str, port: int, only_statistics: bool) -> None:
    """Decide the sets of RUN on which the judges disagree; several may at once, and nobody sees another's set."""
    from mora_launch.rounds.review.command import review as run_review

    sys.exit(run_review(run.absolute(), reviewer, (host, port) if web else None, only_statistics, console))


@cli.command()
@_config
@_changes
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--token-file", type=_FILE, help="Token that everybody needs; by default one for all but you.")
@_checkpoint
@_run
def serve(
    config: Path, changes: tuple[str, ...], host: str, port: int, token_file: Path | None, checkpoint: str | None,
    run: Path | None,
) -> None:  # fmt: skip
    """Keep the models loaded and answer over HTTP, as OpenAI's image and video endpoints do."""
    from mora_launch.config.train_config import load_config
    from mora_launch.serving.command import serve as run_serve

    loaded = load_config(config, _with_checkpoint(changes, checkpoint))
    sys.exit(run_serve(loaded, host=host, port=port, run=run, token_file=token_file, console=console))


def _with_checkpoint(changes: tuple[str, ...], checkpoint: str | None) -> tuple[str, ...]:
    if checkpoint is None:
        return changes
    return (*changes, f"serving.checkpoint={json.dumps(str(Path(checkpoint).absolute()))}")


@cli.group()
def env() -> None:
    """The virtual environments."""


@env.command(name="build")
@click.argument("names", nargs=-1, type=click.Choice(list(ENVIRONMENTS)))
def env_build(names: tuple[str, ...]) -> None:
    """Build the named environments (default: all) where they are missing or outdated."""
    venvs.ensure(list(names or ENVIRONMENTS))
    console.print("environments are up to date")


@env.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def env_list(as_json: bool) -> None:
    """Show interpreter and versions of each environment, and why they cannot be one."""
    from rich.table import Table

    described = venvs.describe()
    if as_json:
        write_json(console, described)
        return
    table = Table("environment", "python", *venvs.SHOWN_PACKAGES, "state", box=None, pad_edge=False)
    for name, environment in ENVIRONMENTS.items():
        versions = venvs.installed_versions(environment)
        state = "built" if environment.is_built() else "not built"
        shown = [versions.get(package, "-") for package in venvs.SHOWN_PACKAGES]
        table.add_row(name, venvs.PYTHON_VERSION, *shown, state)
    console.print(table)
    console.print(f"Why not one: {venvs.REASON}")


@cli.command()
@click.argument("config", type=_FILE, default=Path("configs/tiny.yaml"))
@_changes
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def models(config: Path, changes: tuple[str, ...], as_json: bool) -> None:
    """Show the agents of CONFIG (default: configs/tiny.yaml) and the models that each would load."""
    from mora_launch.config.train_config import load_config
    from mora_launch.jobs.model_list import show_models

    show_models(load_config(config, changes), console, as_json=as_json)


_RUN = click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
_STEP = click.option("--step", type=int, help="Which checkpoint, by its number of steps; by default the committed one.")


@cli.group()
def checkpoint() -> None:
    """The checkpoints of a run: look at them, check them, take weights out."""


@checkpoint.command(name="list")
@_RUN
def checkpoint_list(run: Path) -> None:
    """Show every whole checkpoint of RUN, and from which one a resume starts."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    console.print(Checkpoints.of_run(run).table())


@checkpoint.command(name="verify")
@_RUN
@_STEP
def checkpoint_verify(run: Path, step: int | None) -> None:
    """Compare every file of a checkpoint with its manifest; exit code 1 where one differs."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    checkpoints = Checkpoints.of_run(run)
    info = checkpoints.find(step)
    console.print(f"{info.folder}: {checkpoints.verify(info)} files are as they were written")


@checkpoint.command(name="export")
@_RUN
@_STEP
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to copy to.")
@click.option("--average", is_flag=True, help="The moving average instead of the weights themselves.")
def checkpoint_export(run: Path, step: int | None, output: Path, average: bool) -> None:
    """Copy each agent's weights to OUTPUT/AGENT, in the form that its own library loads."""
    from mora_launch.checkpoints.run_checkpoints import Checkpoints

    checkpoints = Checkpoints.of_run(run)
    for folder in checkpoints.export(checkpoints.find(step), output, average=average):
        console.print(str(folder))


_WHICH_RUN = click.argument(
    "run", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[RUN]"
)


@cli.command()
@_WHICH_RUN
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def status(run: Path | None, as_json: bool) -> None:
    """Show what the processes of RUN do (default: the newest): generation, step, heartbeat, memory, leases."""
    from mora_launch.jobs.status import find_run, show_status

    show_status(find_run(run), console, as_json=as_json)


@cli.command()
@_WHICH_RUN
@click.option("--now", is_flag=True, help="End at once, without a last checkpoint.")
@click.option("--timeout", "timeout_s", type=float, default=120.0, show_default=True, help="Seconds to wait.")
def stop(run: Path | None, now: bool, timeout_s: float) -> None:
    """Stop RUN (default: the newest) as Ctrl-C in its terminal does.

    Training ends after the present step, with a checkpoint; a server once requests under way are answered, at
    most 10 s later; its video jobs are cancelled.
    """
    from mora_launch.jobs.status import find_run, stop_run

    stop_run(find_run(run), console, now=now, timeout_s=timeout_s)


@cli.command()
@_WHICH_RUN
def doctor(run: Path | None) -> None:
    """Say what is wrong and how to mend it: with this machine, and with RUN, why it ended. Exit code 1 where something
    is."""
    from mora_launch.jobs.doctor import examine

    sys.exit(examine(run, console))


@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("name", required=False, metavar="NAME")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(context: click.Context, name: str | None, arguments: tuple[str, ...]) -> None:
    """Measure NAME; options go to the benchmark: `--json FILE`, and `--help` for its own."""
    if name in (None, "-h", "--help"):
        click.echo(context.get_help() + "\n")
        with (formatter := context.make_formatter()).section("Names"):
            formatter.write_dl(list(_BENCHMARKS.items()))
        click.echo(formatter.getvalue(), nl=False)
        return
    if name not in _BENCHMARKS:
        raise click.UsageError(f"no benchmark is named `{name}` (known: {', '.join(_BENCHMARKS)})")
    venvs.ensure(["control"] if name in ("ipc", "judges") else list(ENVIRONMENTS))
    os.chdir(venvs.ROOT)
    python = str(ENVIRONMENTS["opensora" if name == "opensora" else "control"].python)
    os.execv(python, [python, "-m", f"benchmarks.{name}", *_absolute_files(arguments)])


def _absolute_files(arguments: tuple[str, ...]) -> list[str]:
    """Values of --json and --config as absolute paths, because benchmarks run in the checkout's folder."""
    words = list(arguments)
    for position, word in enumerate(words[:-1]):
        if word in ("--json", "--config", "--film", "--generated"):
            words[position + 1] = str(Path(words[position + 1]).absolute())
    return words


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run lint, types and every test in its environment; or only the given test paths. Options go to pytest."""
    from mora_launch.testing.run_tests import run_tests

    paths = [argument for argument in arguments if Path(argument.partition("::")[0]).exists()]
    options = [argument for argument in arguments if argument not in paths]
    sys.exit(run_tests(paths, options, console))


def _check_resume(run: Path | None, resume: bool) -> None:
    if resume and run is None:
        raise click.UsageError("--resume needs --run, the directory of the run to go on with")


def main() -> None:
    """Entry: turn every expected failure into one readable message and a non-zero exit code."""
    allow_open_files()
    clean_tracebacks()
    try:
        code = cli.main(prog_name="mora", standalone_mode=False)
    except click.ClickException as error:
        show_usage_error(error)
        sys.exit(error.exit_code)
    except (MoraError, EnvironmentBuildError) as error:
        console.print(f"mora: {error}", style="red", markup=False)
        sys.exit(1)
    except click.Abort as aborted:  # what click makes of Ctrl-C
        console.print(f"mora: {str(aborted.__cause__ or '') or 'interrupted'}", style="red", markup=False)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
