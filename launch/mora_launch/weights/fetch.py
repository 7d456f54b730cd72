"""`./mora models fetch`: brings what the agents of a configuration load from the Hub, one environment at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mora_environment.weights.fetch_answer import FetchAnswer
from rich.console import Console

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import options_request
from mora_launch.environments.catalog import Environments, environments_of, find_environment
from mora_launch.environments.environment import Environment
from mora_launch.jobs.servers import check_agents
from mora_launch.rounds.judging.judge_agents import judge_agents
from mora_launch.weights.disk_room import check_room
from mora_launch.weights.fetch_process import ask_to_fetch


def fetch_models(config: TrainConfig, console: Console) -> None:
    """Download and convert what is missing of every agent and judge; what is there is left alone.

    Raises:
        MoraError: an environment refuses options, the Hub refuses or cannot be reached, or the disk is too small.
    """
    environments = environments_of(config)
    agents = {**config.agents, **config.serving.agents, **_judges(config, environments)}
    checked = check_agents(config.model_copy(update={"agents": agents}), console)
    lacking = {name: agents[name] for name, found in checked.items() if found.missing}
    if not lacking:
        told = f"the models of all {len(agents)} agents are on this machine"
        console.print(f"{told} ({', '.join(agents)}); nothing was downloaded", markup=False)
        return
    requests = _by_environment(lacking, environments)
    plans = [ask_to_fetch(environment, asked, console, download=False) for environment, asked in requests]
    _tell_plan(plans, console)
    for environment, asked in requests:
        ask_to_fetch(environment, asked, console, download=True)
    console.print(f"the models of {', '.join(lacking)} are on this machine, in {plans[0].cache}", markup=False)


def _judges(config: TrainConfig, environments: Environments) -> dict[str, AgentConfig]:
    found = judge_agents(config.synthesis)
    for agent in found.values():
        find_environment(environments, agent.environment, "synthesis.judges")
    return found


def _by_environment(
    agents: Mapping[str, AgentConfig], environments: Environments
) -> list[tuple[Environment, list[dict[str, Any]]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for name, agent in agents.items():
        found.setdefault(agent.environment, []).append(options_request(name, agent))
    return [(environments[name], asked) for name, asked in found.items()]


def _tell_plan(plans: list[FetchAnswer], console: Console) -> None:
    """Print the size in all, counting a file that agents of several environments load once, and check the disk."""
    files = {(file.repository, file.path): file for plan in plans for file in plan.files}
    conversions = {(each.repository, each.path, each.dtype): each.nbytes for plan in plans for each in plan.conversions}
    downloads_nbytes = sum(file.num_missing_nbytes for file in files.values())
    conversions_nbytes = sum(conversions.values())
    free = check_room(plans[0], downloads_nbytes, conversions_nbytes)
    repositories = ", ".join(dict.fromkeys(repository for repository, _ in files))
    told = [f"{len(files)} files of {repositories}, {downloads_nbytes / 1e9:.2f} GB to download"] if files else []
    if conversions:
        told.append(f"{conversions_nbytes / 1e9:.2f} GB to write as safetensors")
    console.print(f"{', '.join(told)}; {plans[0].cache} has {free / 1e9:.1f} GB free", markup=False)
