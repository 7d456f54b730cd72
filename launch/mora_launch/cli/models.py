"""`mora models`, `mora models list` and `mora models fetch`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mora_launch.cli.options import FILE, changes_option, config_argument, console

_LIST = "list"
_HELP = ("-h", "--help")


class _ListByDefault(click.Group):
    """A group in which `mora models CONFIG` is `mora models list CONFIG`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in _HELP):
            args = [_LIST, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def models() -> None:
    """List the models that the agents of a configuration load, or fetch them.

    `mora models CONFIG` lists them.
    """


@models.command(name=_LIST, epilog="Example: ./mora models list configs/mora-osp-8xh100.yaml")
@click.argument("config", type=FILE, default=Path("configs/tiny.yaml"))
@changes_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(config: Path, changes: tuple[str, ...], as_json: bool) -> None:
    """List the agents of CONFIG and the models that they load.

    CONFIG is configs/tiny.yaml by default.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.jobs.model_list import show_models

    show_models(load_config(config, changes), console, as_json=as_json)


@models.command(epilog="Example: ./mora models fetch configs/mora-osp-8xh100.yaml")
@config_argument
@changes_option
def fetch(config: Path, changes: tuple[str, ...]) -> None:
    """Download from the Hub what the agents and judges of CONFIG load, and convert what is not safetensors.

    Of a CONFIG of metrics, such as configs/evaluation.yaml, it fetches their weights as they are.

    Files go into the Hub's cache (HF_HOME, HF_HUB_CACHE), converted weights into mora-weights/ next to it. Servers
    never download. A gated model needs its terms accepted on its page, and HF_TOKEN or `hf auth login`. A fetch that
    was interrupted continues where it ended.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.evaluation.config import is_of_evaluation, load_evaluation
    from mora_launch.evaluation.fetch_command import fetch_metrics
    from mora_launch.weights.fetch import fetch_models

    if is_of_evaluation(config):
        sys.exit(0 if fetch_metrics(load_evaluation(config, changes), console) else 1)
    fetch_models(load_config(config, changes), console)
