"""The command `mora`: all subcommands, and errors shown as one message with an exit code."""

from __future__ import annotations

import sys

import click
from mora_runtime.errors import MoraError

from mora_launch.cli.account import complete_account
from mora_launch.cli.bench import bench
from mora_launch.cli.config import config
from mora_launch.cli.data import data
from mora_launch.cli.doctor import doctor
from mora_launch.cli.env import env
from mora_launch.cli.evaluation.evaluate import evaluate
from mora_launch.cli.evaluation.tables import tables
from mora_launch.cli.generate import generate
from mora_launch.cli.models import models
from mora_launch.cli.options import console
from mora_launch.cli.profile import profile
from mora_launch.cli.review import review
from mora_launch.cli.runs.checkpoint import checkpoint
from mora_launch.cli.runs.curves import curves
from mora_launch.cli.runs.status import status
from mora_launch.cli.runs.stop import stop
from mora_launch.cli.serve import serve
from mora_launch.cli.synthesize import synthesize
from mora_launch.cli.test import test
from mora_launch.cli.train import train
from mora_launch.environments.venv_build import EnvironmentBuildError
from mora_launch.jobs.machine import allow_open_files
from mora_launch.terminal import clean_tracebacks, show_usage_error


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: ./mora train configs/tiny.yaml")
def cli() -> None:
    """Train and serve models that cannot share one Python environment, as one differentiable pipeline."""


_COMMANDS = (
    train, profile, synthesize, generate, review, serve, evaluate, tables, config, env, models, data, checkpoint,
    curves, status, stop, doctor, bench, test,
)  # fmt: skip
for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run the command line. Every expected failure becomes one readable message and a non-zero exit code."""
    allow_open_files()
    complete_account()
    clean_tracebacks()
    try:
        code = cli.main(prog_name="mora", standalone_mode=False)
    except click.ClickException as error:
        show_usage_error(error)
        sys.exit(error.exit_code)
    except (MoraError, EnvironmentBuildError) as error:
        console.print(f"mora: {error}", style="red", markup=False)
        sys.exit(1)
    except click.Abort as aborted:  # click raises it for Ctrl-C
        console.print(f"mora: {str(aborted.__cause__ or '') or 'interrupted'}", style="red", markup=False)
        sys.exit(getattr(aborted.__cause__, "exit_code", 130))  # another one after SIGTERM
    sys.exit(code if isinstance(code, int) else 0)
