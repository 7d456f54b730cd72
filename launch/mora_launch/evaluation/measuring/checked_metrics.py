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
    """Check every metric, as `check_each`, and whether its weights are on this machine and it measures at all.

    Returns:
        The metrics that can be used, and of each other one why it cannot, in one line.
    """
    options, refused = check_each(config, console)
    checked: dict[str, CheckedMetric] = {}
    for name, found in options.items():
        agent = config.agents[name]
        device = agent.device(0).partition(":")[0]
        why = "; ".join(missing_lines([found]))
        if found.interface is None or not found.interface.is_metric:
            why = f"{_key(name)}.kind: `{agent.kind}` is no metric; expected a kind that measures videos"
        if why:
            refused[name] = _told(name, why)
        else:
            checked[name] = CheckedMetric(
                found, {"environment": agent.environment, "kind": agent.kind, "device": device}
            )
    return checked, refused


def check_each(config: TrainConfig, console: Console) -> tuple[dict[str, CheckedOptions], dict[str, str]]:
    """Build missing environments and tiny models, then have the options of every metric checked.

    Args:
        config: its agents are the metrics.

    Returns:
        The checked options, and why the others were refused, in one line each.

    Raises:
        MoraError: an environment or tiny models cannot be made.
    """
    environments = environments_of(config)
    used = {agent.environment: environments[agent.environment] for _, agent in config.agents.items()}
    ensure_environments(used.values())
    ensure_tiny_models(config, console)
    with ThreadPoolExecutor() as pool:
        pending = {
            name: pool.submit(check_options, name, agent, used[agent.environment])
            for name, agent in config.agents.items()
        }
    checked: dict[str, CheckedOptions] = {}
    refused: dict[str, str] = {}
    for name, each in pending.items():
        try:
            checked[name] = each.result()
        except MoraError as error:
            refused[name] = _told(name, str(error))
    return checked, refused


def _told(name: str, text: str) -> str:
    """An environment's message in one line, with the key as it is in the user's configuration."""
    return " ".join(text.split()).replace(f"agents.{name}.", f"{_key(name)}.")


def _key(name: str) -> str:
    return f"evaluation.metrics.{name}"
