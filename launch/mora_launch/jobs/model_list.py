"""`mora models`: lists the agents of a configuration and the models that they load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mora_launch.config.device_tensors import tensor_ways
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.jobs.servers import check_agents
from mora_launch.serving.models import ServedModels, served_models
from mora_launch.terminal import format_nbytes, write_json
from mora_launch.weights.missing import missing_lines


def show_models(config: TrainConfig, console: Console, *, as_json: bool) -> None:
    """Print every agent with its models.

    Raises:
        MoraError: an environment refuses an agent's options, or the checkpoint to serve does not exist.
    """
    served = served_models(config)
    checked = check_agents(served.config, console)
    described = describe_models(served, checked)
    if as_json:
        write_json(console, described)
        return
    columns = ("agent", "environment", "kind", "servers", "does", "weights", "model", "parameters", "memory")
    table = Table(*columns, box=None, pad_edge=False)
    for name, agent in described.items():
        first = (name, agent["environment"], agent["kind"], str(agent["num_servers"]), agent["does"], agent["weights"])
        for row, part in enumerate(agent["models"]):
            shown = (part["name"], f"{part['num_parameters']:,}", format_nbytes(part["nbytes"]))
            table.add_row(*(first if row == 0 else [""] * len(first)), *shown)
    console.print(table)
    for way in tensor_ways(config):
        console.print(f"tensors in training: {way}", markup=False)
    for line in missing_lines(checked.values()):
        console.print(line, style="yellow", markup=False)


def describe_models(served: ServedModels, checked: Mapping[str, CheckedOptions]) -> dict[str, dict[str, Any]]:
    """Return `environment`, `kind`, `num_servers`, `does`, `options` with all defaults, and `models`, by agent.

    `weights` says whether they are on this machine, `missing` what is not.
    """
    return {
        name: {
            "environment": agent.environment,
            "kind": agent.kind,
            "num_servers": served.num_servers[name],
            "does": _does(served.config, name),
            "options": checked[name].options,
            "weights": "missing" if checked[name].missing else "here",
            "missing": [str(each) for each in checked[name].missing],
            "models": [
                {
                    "name": part.name,
                    "num_parameters": part.num_parameters,
                    "nbytes": part.num_parameters * part.dtype_nbytes,
                }
                for part in checked[name].components
            ],
        }
        for name, agent in served.config.agents.items()
    }


def _does(config: TrainConfig, name: str) -> str:
    """Return what an agent is for: training if it is in the chain, and capabilities."""
    capabilities = ", ".join(config.agents[name].capabilities or ("the remaining capabilities",))
    trains = name in config.chain_names and name not in config.serving.agents
    return f"training, and {capabilities}" if trains else capabilities
