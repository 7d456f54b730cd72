"""`mora env list`, `mora env build` and `mora env check`."""

from __future__ import annotations

import subprocess
import sys

import click

from mora_launch.cli.options import console
from mora_launch.environments.venvs import CONTROL
from mora_launch.terminal import write_json

_NAMES = click.argument("names", nargs=-1, metavar="[NAME|PATH]...")


@click.group()
def env() -> None:
    """List, build and check the environments of the agents."""


@env.command(name="build", epilog="Example: ./mora env build sd3")
@_NAMES
def env_build(names: tuple[str, ...]) -> None:
    """Build the environments that are missing or outdated.

    NAME is an environment of the checkout or `control`, PATH a folder with `mora-env.toml` (default: all of the
    checkout).
    """
    from mora_launch.environments.catalog import checkout_environments, environment_at
    from mora_launch.environments.venv_build import ensure

    wanted = [environment_at(name) for name in names if name != CONTROL.name] or ()
    found = wanted if names else checkout_environments().values()
    own = [CONTROL] if not names or CONTROL.name in names else []
    ensure([*own, *(each.venv for each in found if each.venv is not None)])
    console.print("environments are up to date")


@env.command(name="list", epilog="Example: ./mora env list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def env_list(as_json: bool) -> None:
    """List the environments with their versions, and why one environment is not enough."""
    from rich.table import Table

    from mora_launch.environments import env_list as listed

    described = listed.describe()
    if as_json:
        write_json(console, described)
        return
    table = Table("environment", "package", "python", *listed.SHOWN_PACKAGES, "state", box=None, pad_edge=False)
    for name, each in described.items():
        versions = each["packages"]
        assert isinstance(versions, dict)
        shown = [versions.get(package, "-") for package in listed.SHOWN_PACKAGES]
        state = "built" if each["built"] else "not built"
        table.add_row(name, str(each["package"]), str(each["python_version"]), *shown, state)
    console.print(table)
    console.print(f"Why one environment is not enough: {listed.REASON}")


@env.command(
    name="check",
    context_settings={"ignore_unknown_options": True},
    epilog="Example: ./mora env check ../my_environment",
)
@click.argument("name", metavar="NAME|PATH")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[KIND]... [OPTIONS]...")
def env_check(name: str, arguments: tuple[str, ...]) -> None:
    """Build an environment and check every kind of agent in it with tiny models.

    It runs `python -m PACKAGE check` there; KIND and options, such as `--json FILE`, go to that command.
    """
    from mora_launch.environments.build import ensure_environments
    from mora_launch.environments.catalog import environment_at

    environment = environment_at(name)
    ensure_environments([environment])
    command = [str(environment.python), "-m", environment.package, "check", *arguments]
    sys.exit(subprocess.run(command, check=False).returncode)
