"""`mora test`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import console


@click.command(context_settings={"ignore_unknown_options": True}, options_metavar="[OPTIONS]")
@click.option("--all", "with_long", is_flag=True, help="Run the tests marked `long` too, as a nightly run does.")
@click.option(
    "--jobs",
    "num_jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stages that run next to each other; by default as many as there are cores, and at least 2.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PATH]... [PYTEST OPTIONS]...")
def test(arguments: tuple[str, ...], with_long: bool, num_jobs: int | None) -> None:
    """Run lint, types and the tests, each in the environment of what it tests; or only the tests in PATH.

    Without PATH everything runs that guards a change. Tests marked `long` (a death at every kill point of every role,
    soaks, benchmarks run as tests) repeat at length what others check briefly; they run with --all, and where PATH
    names them. Other options go to pytest.
    """
    from mora_launch.testing.run_tests import run_tests

    paths = [argument for argument in arguments if Path(argument.partition("::")[0]).exists()]
    options = [argument for argument in arguments if argument not in paths]
    sys.exit(run_tests(paths, options, console, with_long=with_long, num_jobs=num_jobs))
