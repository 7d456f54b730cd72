"""Checks of the metrics' options, each by its environment. A metric that cannot be used is left out, and told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mora_runtime.errors import MoraError
from rich.console import Console

from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.agent_options import CheckedOptions, check_options
from mora_launch.environments.build import ensure_environments
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.environment import Environment
from mora_launch.environments.tiny_models import ensure_tiny_models
from mora_launch.weights.missing import missing_lines


@dataclass(frozen=True)
class CheckedMetric:
    """A metric whose options are valid and whose weights are on this machine.

    Attributes:
        settings: what its results depend on besides the video and the version that its agent tells.
    """

    options: CheckedOptions
    settings: dict[str, str]


def check_metrics(config: TrainConfig, console: Console) -> tuple[dict[str, CheckedMetric], dict[str, str]]:
    """Build missing environments and tiny models, then check every metric.

    Args:
        config: its agents are the metrics.

    Returns:
        The metrics that can be used, and of each other one why it cannot, in one line.

    Raises:
        MoraError: an environment or tiny models cannot be made.
    """
    environments = environments_of(config)
    used = {agent.environment: environments[agent.environment] for _, agent in config.agents.items()}
    ensure_environments(used.values())
    ensure_tiny_models(config, console)
    with ThreadPoolExecutor() as pool:
        pending = {
            name: pool.submit(_check, name, config, environments[agent.environment])
            for name, agent in config.agents.items()
        }
    checked: dict[str, CheckedMetric] = {}
    refused: dict[str, str] = {}
    for name, each in pending.items():
        try:
            checked[name] = each.result()
        except MoraError as error:
            refused[name] = " ".join(str(error).split())
    return checked, refused


def _check(name: str, config: TrainConfig, environment: Environment) -> CheckedMetric:
    agent = config.agents[name]
    options = check_options(name, agent, environment)
    missing = missing_lines([options])
    if missing:
        raise MoraError("; ".join(missing))
    if options.interface is None or not options.interface.is_metric:
        raise MoraError(f"evaluation.metrics.{name}: its kind `{agent.kind}` is no metric; expected one that measures")
    device = agent.device(0).partition(":")[0]
    return CheckedMetric(options, {"environment": agent.environment, "kind": agent.kind, "device": device})
