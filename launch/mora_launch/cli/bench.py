"""`mora bench`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mora_launch.environments import venvs
from mora_launch.environments.venvs import ENVIRONMENTS

BENCHMARKS = {
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


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("name", required=False, metavar="NAME")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(context: click.Context, name: str | None, arguments: tuple[str, ...]) -> None:
    """Measure NAME; options go to the benchmark: `--json FILE`, and `--help` for its own."""
    if name in (None, "-h", "--help"):
        click.echo(context.get_help() + "\n")
        with (formatter := context.make_formatter()).section("Names"):
            formatter.write_dl(list(BENCHMARKS.items()))
        click.echo(formatter.getvalue(), nl=False)
        return
    if name not in BENCHMARKS:
        raise click.UsageError(f"no benchmark is named `{name}` (known: {', '.join(BENCHMARKS)})")
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
