"""`mora env build` and `mora env list`."""

from __future__ import annotations

import click

from mora_launch.cli.options import console
from mora_launch.environments import venvs
from mora_launch.environments.venvs import ENVIRONMENTS
from mora_launch.terminal import write_json


@click.group()
def env() -> None:
    """Build and list the virtual environments."""


@env.command(name="build")
@click.argument("names", nargs=-1, type=click.Choice(list(ENVIRONMENTS)))
def env_build(names: tuple[str, ...]) -> None:
    """Build the named environments that are missing or outdated (default: all)."""
    venvs.ensure(list(names or ENVIRONMENTS))
    console.print("environments are up to date")


@env.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def env_list(as_json: bool) -> None:
    """List the environments with their versions, and why one environment is not enough."""
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
    console.print(f"Why one environment is not enough: {venvs.REASON}")
