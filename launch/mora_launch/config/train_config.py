"""The user's configuration: one YAML file and `--set` changes, checked completely before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mora_data.settings import ClipShape, DataSection, DataSettings
from mora_runtime.errors import SettingsError
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import PositiveInt, Settings, read_settings
from mora_trainer.settings import ModulationSettings, SampleSettings, TrainingSettings, check_batch
from mora_training.training_settings import TrainableSettings
from pydantic import Field, model_validator

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.foreign_yaml import YamlRefused, parse_yaml, read_yaml
from mora_launch.config.restarts import RestartSettings
from mora_launch.limits import MAX_CONFIG_DEPTH
from mora_launch.rounds.settings import SynthesisSettings
from mora_launch.serving.settings import ServingSettings, check_served


class AgentsConfig(Settings):
    """The agents of the trained chain, in order."""

    image: AgentConfig
    video: AgentConfig

    def items(self) -> list[tuple[str, AgentConfig]]:
        """Return (name, agent) pairs in the order of the chain."""
        return [("image", self.image), ("video", self.video)]


class TrainConfig(Settings):
    """The whole configuration of a joint training job."""

    name: str = "mora"
    seed: int = 42
    replicas: PositiveInt = 1
    clip: ClipShape
    agents: AgentsConfig
    scope: Literal["joint", "image_only", "video_only"] = "joint"  # which agents train; the others are frozen
    modulation: ModulationSettings = ModulationSettings()
    training: TrainingSettings = TrainingSettings()
    data: DataSection = DataSettings()
    samples: SampleSettings = SampleSettings()
    shared_memory_nbytes: PositiveInt = 1 << 30  # of all roles' tensors together
    spill_nbytes: int = Field(default=1 << 30, ge=0)  # on top of that for each role, in slower single-tensor segments
    pin_cores: bool = True  # give each CPU server cores that no other server uses, if there are enough
    restarts: RestartSettings = RestartSettings()  # of roles that die while the job runs
    faults: tuple[str, ...] = ()  # injected on purpose, in the format of MORA_FAULT: role:point:n
    synthesis: SynthesisSettings = SynthesisSettings()  # only for `mora synthesize`
    serving: ServingSettings = ServingSettings()  # for `mora generate` and `mora serve`
    start_deadline_s: float = Field(default=900.0, gt=0.0)  # includes loading models

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        check_batch(self.training, self.replicas)
        for name, agent in self.agents.items():
            if len(agent.devices) not in (1, self.replicas):
                raise ValueError(
                    f"agents.{name}.devices names {len(agent.devices)} devices for {self.replicas} replica(s); "
                    f"give one for all, or {self.replicas}"
                )
        check_served(self.serving, [name for name, _ in self.agents.items()])
        return self


def _scoped(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the agents outside its scope frozen: their parameters and their z do not change."""
    if config.scope == "joint":
        return config
    still = {"trainable": TrainableSettings(scope="none"), "learning_rate": 0.0, "modulation_learning_rate": 0.0}
    agents = {
        name: agent if config.scope == f"{name}_only" else agent.model_copy(update=still)
        for name, agent in config.agents.items()
    }
    return config.model_copy(update={"agents": AgentsConfig(**agents)})


def load_config(path: Path, changes: Sequence[str]) -> TrainConfig:
    """Read a YAML file and apply `key.path=value` changes (values in YAML).

    Raises:
        SettingsError: unreadable file, unknown key (with the nearest known one), or an invalid value.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise SettingsError(f"config {path}: cannot be read: {error.strerror}") from None
    except YamlRefused as error:
        raise SettingsError(f"config {path}: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"config {path}: expected keys and values, got {type(content).__name__}")
    for change in changes:
        _apply(content, change)
    return _scoped(read_settings(TrainConfig, content, source=str(path) + (" with --set" if changes else "")))


def _apply(content: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise SettingsError(f"--set {change}: expected key=value, for example training.num_steps=4")
    try:
        value = parse_yaml(text)
    except YamlRefused as error:
        raise SettingsError(f"--set {shown_line(change, 100)}: the value {error}") from None
    node: Any = content
    *parents, last = key.split(".")
    if len(parents) > MAX_CONFIG_DEPTH:
        raise SettingsError(f"--set {shown_line(change, 100)}: expected at most {MAX_CONFIG_DEPTH} sections, got more")
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise SettingsError(f"--set {change}: `{part}` is a value, not a section")
    node[last] = value
