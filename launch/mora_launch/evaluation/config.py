"""The configuration of an evaluation: a file of its own, or the section of a configuration of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mora_data.settings import ClipShape
from mora_runtime.process.role import Role
from mora_runtime.schema import PositiveInt, Settings, read_settings
from pydantic import Field, model_validator

from mora_launch.config.environment_source import EnvironmentSource
from mora_launch.config.restarts import RestartSettings
from mora_launch.config.train_config import TrainConfig, load_config, read_content
from mora_launch.environments.catalog import check_known
from mora_launch.environments.manifest import EnvironmentName
from mora_launch.evaluation.settings import EvaluationSettings, MetricSettings
from mora_launch.jobs.resources import MIN_ARENA_NBYTES

_UNUSED_CLIP = ClipShape(num_frames=2, height=8, width=8)  # metrics take clips of any shape


class EvaluationConfig(Settings):
    """What an evaluation needs; a configuration of training has all of these keys."""

    environments: dict[EnvironmentName, EnvironmentSource] = Field(default_factory=dict)
    evaluation: EvaluationSettings = EvaluationSettings()
    restarts: RestartSettings = RestartSettings()
    pin_cores: bool = True
    spill_nbytes: int = Field(default=1 << 30, ge=0)
    start_deadline_s: float = Field(default=900.0, gt=0.0)
    seed: int = 42
    name: str = "evaluation"
    shared_memory_nbytes: PositiveInt = 1 << 30

    @model_validator(mode="after")
    def _has_known_environments(self) -> EvaluationConfig:
        agents = {name: metric.agent(name) for name, metric in self.evaluation.metrics.items()}
        check_known(self, {"evaluation.metrics": agents})
        return self

    @classmethod
    def of(cls, config: TrainConfig) -> EvaluationConfig:
        """Return what a configuration of training says about evaluation."""
        return cls(**{name: getattr(config, name) for name in cls.model_fields})

    def served(self, metrics: Mapping[str, MetricSettings]) -> TrainConfig:
        """Return a configuration whose agents are these metrics, with as many replicas as the largest has servers."""
        replicas = max(metric.num_servers for metric in metrics.values())
        config = TrainConfig(
            clip=_UNUSED_CLIP, agents={name: metric.agent(name) for name, metric in metrics.items()},
            # frames are in the launcher's memory; a server answers with a few numbers
            shared_memory_nbytes=(len(metrics) + 1) * replicas * MIN_ARENA_NBYTES,
            **{name: getattr(self, name) for name in _SERVED},
        )  # fmt: skip
        agents = {
            name: agent.model_copy(update={"devices": _in_turn(metrics[name].devices, replicas)})
            for name, agent in config.agents.items()
        }
        return config.model_copy(update={"agents": agents, "replicas": replicas})


_SERVED = ("name", "environments", "seed", "restarts", "pin_cores", "spill_nbytes", "start_deadline_s")


def _in_turn(devices: Sequence[str], number: int) -> tuple[str, ...]:
    return tuple(devices[index % len(devices)] for index in range(number))


def load_evaluation(path: Path, changes: Sequence[str]) -> EvaluationConfig:
    """Read a file with the section `evaluation`: one of an evaluation, or a configuration of training.

    Raises:
        SettingsError: unreadable file, unknown key (with the nearest known one), or an invalid value.
    """
    content = read_content(path, changes)
    if "agents" in content:
        return EvaluationConfig.of(load_config(path, changes))
    return read_settings(EvaluationConfig, content, source=str(path) + (" with --set" if changes else ""))


def is_of_evaluation(path: Path) -> bool:
    """Whether a file is a configuration of an evaluation alone. Raises: SettingsError: it cannot be read."""
    return "agents" not in read_content(path, ())


def roles_of(metrics: Mapping[str, MetricSettings]) -> list[Role]:
    """Return the roles of all servers: `dino.0`, ..."""
    return [Role.of(name, number) for name, metric in metrics.items() for number in range(metric.num_servers)]
