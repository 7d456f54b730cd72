"""`mora bench`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mora_launch.environments.venvs import CONTROL, ROOT

BENCHMARKS = {
    "ipc": "tensor transfer between processes, compared with memory copies and other libraries",
    "train": "cost of the process border in a training step",
    "parity": "gradients across processes, compared with one process",
    "opensora": "speed of the video model",
    "profiler_cost": "cost of tracing",
    "seeking": "a clip at the end of a film of an hour, compared with one at its beginning",
    "judges": "how reliably the judges rank broken clips last",
    "chaos": "training jobs whose processes are killed",
    "safety_cost": "cost of checkpoints and heartbeats in a training step",
    "rounds": "data-free rounds that are killed and resumed, compared with undisturbed ones",
    "learn": "how well the chain follows held-out prompts before and after joint training, by variant",
    "serve": "throughput over HTTP, compared with a bare loop",
}


@click.command(
    context_settings={"ignore_unknown_options": True},
    add_help_option=False,
    epilog="Example: ./mora bench ipc --json ipc.json",
)
@click.argument("name", required=False, metavar="[NAME]")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(context: click.Context, name: str | None, arguments: tuple[str, ...]) -> None:
    """Run a benchmark.

    Without NAME, list the benchmarks. Options go to the benchmark: `--json FILE` writes its results, `--help` lists
    its own options.
    """
    if name in (None, "-h", "--help"):
        click.echo(context.get_help() + "\n")
        with (formatter := context.make_formatter()).section("Names"):
            formatter.write_dl(list(BENCHMARKS.items()))
        click.echo(formatter.getvalue(), nl=False)
        return
    from mora_launch.environments.build import ensure_environments
    from mora_launch.environments.catalog import checkout_environments

    if name not in BENCHMARKS:
        raise click.UsageError(f"no benchmark is named `{name}` (known: {', '.join(BENCHMARKS)})")
    environments = checkout_environments()
    ensure_environments([] if name in ("ipc", "judges", "seeking") else environments.values())
    os.chdir(ROOT)
    python = str(environments.get(name, CONTROL).python)  # a benchmark named as an environment runs in it
    os.execv(python, [python, "-m", f"benchmarks.{name}", *_absolute_files(arguments)])


def _absolute_files(arguments: tuple[str, ...]) -> list[str]:
    """Make the paths among the options absolute, because benchmarks run in the checkout's folder."""
    words = list(arguments)
    for position, word in enumerate(words[:-1]):
        if word in ("--json", "--config", "--film", "--generated"):
            words[position + 1] = str(Path(words[position + 1]).absolute())
    return words
