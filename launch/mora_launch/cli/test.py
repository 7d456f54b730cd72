"""`mora test`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import console


@click.command(
    context_settings={"ignore_unknown_options": True},
    options_metavar="[OPTIONS]",
    epilog="Example: ./mora test tests/unit/runtime -k codec",
)
@click.option("--all", "with_long", is_flag=True, help="Also run the tests marked `long`.")
@click.option(
    "--jobs",
    "num_jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of stages to run in parallel.  [default: number of cores, at least 2]",
)
@click.option("--ends", is_flag=True, help="Only test the runtime with the lowest and newest Python and packages.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PATH]... [PYTEST OPTIONS]...")
def test(arguments: tuple[str, ...], with_long: bool, num_jobs: int | None, ends: bool) -> None:
    """Run lint, type checks and tests, or only the tests in PATH.

    Each test runs in the environment of the package that it tests. Tests marked `long` (a death at every kill point
    of every role, soaks, benchmarks) run only with --all or if PATH contains them. Other options go to pytest.

    --ends builds two environments in a temporary folder, which takes gigabytes. Neither --all nor PATH includes it.
    """
    if ends:
        from mora_launch.testing.ends import run_ends

        if arguments or with_long or num_jobs is not None:
            raise click.UsageError("--ends goes with no other argument")
        sys.exit(run_ends(console))
    from mora_launch.testing.run_tests import run_tests

    paths = [argument for argument in arguments if Path(argument.partition("::")[0]).exists()]
    options = [argument for argument in arguments if argument not in paths]
    sys.exit(run_tests(paths, options, console, with_long=with_long, num_jobs=num_jobs))
