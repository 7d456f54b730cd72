"""What a user wants of `mora checkpoint export`, and how adapters are converted for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mora_runtime.errors import CheckpointError
from mora_trainer.checkpoint.commit_record import CheckpointInfo

from mora_launch.checkpoints.export_format import ExportFormat, adapted_agents
from mora_launch.checkpoints.exported_weights import Convert
from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.adapter_export import ask_to_export
from mora_launch.environments.build import ensure_environments
from mora_launch.environments.catalog import Environments, checkout_environments, environments_of
from mora_launch.resuming.run_configs import latest_config


@dataclass(frozen=True)
class Export:
    """The options of the command.

    Args:
        average: the moving average instead of the weights.
        agents: empty = all that can be exported in the format.
        config: with the models that were adapted; None = the run's own, of which only environments of the checkout run.
    """

    format: ExportFormat = ExportFormat.NATIVE
    average: bool = False
    agents: tuple[str, ...] = ()
    config: TrainConfig | None = None

    @property
    def part(self) -> str:
        """The part of the checkpoint: `weights` or `ema`."""
        return "ema" if self.average else "weights"

    @property
    def told(self) -> dict[str, str]:
        """What the note next to exported weights tells of the format."""
        return {} if self.format is ExportFormat.NATIVE else {"format": self.format.value}

    def converters(self, info: CheckpointInfo, agents: Sequence[str], run: Path) -> dict[str, Convert]:
        """Return what converts the files of each agent with adapters.

        Raises:
            MoraError: the configuration cannot be read, lacks an agent, or its environment cannot be built.
        """
        adapted = adapted_agents(info, self.part).intersection(agents)
        if self.format is ExportFormat.NATIVE or not adapted:
            return {}
        config = latest_config(run) if self.config is None else self.config
        # a run may come from a stranger, who must not choose what is installed or run
        environments = checkout_environments() if self.config is None else environments_of(config)
        named = {name: _agent(name, config) for name in sorted(adapted)}
        for name, agent in named.items():
            _check_known(name, agent, environments)
        ensure_environments(environments[agent.environment] for agent in named.values())
        return {name: self._converter(name, agent, environments) for name, agent in named.items()}

    def _converter(self, name: str, agent: AgentConfig, environments: Environments) -> Convert:
        ask = partial(ask_to_export, name, agent, environments[agent.environment], adapter_format=self.format.value)
        return lambda source, target: ask(adapters=source, target=target)


def _agent(name: str, config: TrainConfig) -> AgentConfig:
    if name not in config.agents:
        raise CheckpointError(
            f"`{name}` of the checkpoint: expected it in the configuration, which has {', '.join(config.agents)}; give "
            "the one of the run with --config"
        )
    return config.agents[name]


def _check_known(name: str, agent: AgentConfig, environments: Environments) -> None:
    if agent.environment not in environments:
        raise CheckpointError(
            f"agents.{name}: its environment `{agent.environment}` is not one of this checkout, and a run does not "
            "choose what runs here; name the configuration that has it with --config"
        )
