"""`mora test`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import console


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run lint, types and every test in its environment; or only the given test paths. Options go to pytest."""
    from mora_launch.testing.run_tests import run_tests

    paths = [argument for argument in arguments if Path(argument.partition("::")[0]).exists()]
    options = [argument for argument in arguments if argument not in paths]
    sys.exit(run_tests(paths, options, console))
