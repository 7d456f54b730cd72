"""Asks environments what the agents of a job cost, by running their code on the meta device in their interpreters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from mora_environment.cost import AgentCost, CostRequest
from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import Settings, read_settings

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions
from mora_launch.environments.asked_environment import ask_environment
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.environment import Environment
from mora_launch.limits import COST_DEADLINE_S

_NUM_CONTENT_ROWS = 4  # of "[Mod]" in the tokens of T5; a few rows more or less change nothing


class _CostAnswer(Settings):
    """An environment's answer."""

    protocol: int
    cost: AgentCost | None = None
    error: str | None = None


def ask_costs(config: TrainConfig, checked: Mapping[str, CheckedOptions]) -> dict[str, AgentCost | None]:
    """Return what each agent of the chain costs; None where its kind does not tell.

    Raises:
        EnvironmentFailed: an environment's command failed, or gave an unexpected answer.
    """
    environments = environments_of(config)
    with ThreadPoolExecutor() as pool:
        pending = {
            name: pool.submit(_ask, name, agent, checked[name], _work(config, name), environments[agent.environment])
            for name, agent in config.agents.items()
        }
        return {name: each.result() for name, each in pending.items()}


def _work(config: TrainConfig, name: str) -> CostRequest:
    """What the agent does for one micro-batch."""
    names = config.chain_names
    is_last = name == names[-1]
    before = names[: names.index(name)]
    rows = {"content": _NUM_CONTENT_ROWS, "mean": 1, "new_token": 1}[config.modulation.rows]
    return CostRequest(
        batch_size=config.training.micro_batch_size,
        has_loss=is_last,
        adds_loss=not is_last and name in config.loss_weights,
        trainable=config.agents[name].trainable,
        passes_gradient=any(config.agents[each].trainable.scope != "none" for each in before),
        num_rows=0 if config.modulation.mode == "none" else rows,
    )


def _ask(
    name: str, agent: AgentConfig, checked: CheckedOptions, work: CostRequest, environment: Environment
) -> AgentCost | None:
    asked = f"environment {environment.name}: `python -m {environment.package} cost` for agents.{name}"
    request = {
        "kind": agent.kind, "options": checked.options, "source": f"agents.{name}.options",
        "work": work.model_dump(mode="json"),
    }  # fmt: skip
    said = ask_environment(environment, "cost", json.dumps(request), asked=asked, deadline_s=COST_DEADLINE_S)
    try:
        answer = read_settings(_CostAnswer, json.loads(said), source=f"{asked}: its answer")
    except (ValueError, RecursionError, SettingsError) as error:
        raise EnvironmentFailed(f"{asked}: expected its cost as JSON: {shown_line(str(error), 300)}") from None
    if answer.error is not None:
        raise EnvironmentFailed(f"{asked}: {answer.error}")
    return answer.cost
