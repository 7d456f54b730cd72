"""The user's configuration: one YAML file and `--set` changes, checked completely before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from mora_data.settings import ClipShape, DataSection, DataSettings
from mora_runtime.errors import SettingsError
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import PositiveInt, Settings, read_settings
from mora_trainer.settings import ModulationSettings, SampleSettings, TrainingSettings, check_batch
from mora_training.training_settings import TrainableSettings
from pydantic import Field, model_validator

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.chain_names import AgentName, check_names
from mora_launch.config.environment_source import EnvironmentSource, make_paths_absolute
from mora_launch.config.foreign_yaml import YamlRefused, parse_yaml, read_yaml
from mora_launch.config.old_keys import replace_old_keys
from mora_launch.config.restarts import RestartSettings
from mora_launch.environments.catalog import check_known
from mora_launch.environments.manifest import EnvironmentName
from mora_launch.environments.venvs import ROOT
from mora_launch.evaluation.settings import EvaluationSettings
from mora_launch.evaluation.suite.dimensions import check_of_run
from mora_launch.limits import MAX_CONFIG_DEPTH
from mora_launch.rounds.settings import SynthesisSettings
from mora_launch.serving.settings import ServingSettings, check_served


class TrainConfig(Settings):
    """The whole configuration of a joint training job."""

    name: str = "mora"  # of the job; part of the names of its run directories
    environments: dict[EnvironmentName, EnvironmentSource] = Field(default_factory=dict)  # besides the checkout's
    seed: int = 42  # of weights that are drawn, order of samples and noise
    replicas: PositiveInt = 1  # copies of the chain, each with its own servers; they share every batch
    clip: ClipShape
    agents: dict[AgentName, AgentConfig] = Field(min_length=1)
    chain: tuple[str, ...] = ()  # the agents in the order of the forward; default: all, in their order
    trains: tuple[str, ...] | None = None  # the agents of the chain that train; default: all but critics
    losses: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default_factory=dict)  # weights; default: the last one's
    modulation: ModulationSettings = ModulationSettings()
    training: TrainingSettings = TrainingSettings()
    data: DataSection = DataSettings()
    samples: SampleSettings = SampleSettings()
    shared_memory_nbytes: PositiveInt = 1 << 30  # of all roles' tensors together
    spill_nbytes: int = Field(default=1 << 30, ge=0)  # on top of that for each role, in slower single-tensor segments
    # Keep tensors between two training servers on GPUs in GPU memory. It has not run on a GPU yet, so it is off.
    device_tensors: bool = False
    device_pool_nbytes: PositiveInt = 64 << 20  # of each such server's GPU; a tensor that finds no room is staged
    pin_cores: bool = True  # give each CPU server cores that no other server uses, if there are enough
    restarts: RestartSettings = RestartSettings()  # of roles that die while the job runs
    faults: tuple[str, ...] = ()  # injected on purpose, in the format of MORA_FAULT: role:point:n
    synthesis: SynthesisSettings = SynthesisSettings()  # only for `mora synthesize`
    serving: ServingSettings = ServingSettings()  # for `mora generate` and `mora serve`
    evaluation: EvaluationSettings = EvaluationSettings()  # for `mora evaluate`, and metrics of a run
    start_deadline_s: float = Field(default=900.0, gt=0.0)  # includes loading models

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        check_batch(self.training, self.replicas)
        check_of_run("samples.metrics", self.samples.metrics)
        check_of_run("synthesis.evaluation_metrics", self.synthesis.evaluation_metrics)
        check_known(self, {"agents": dict(self.agents.items()), "serving.agents": self.serving.agents})
        check_names(self.agents, self.chain, self.trains, self.losses)
        for name, agent in self.agents.items():
            if len(agent.devices) not in (1, self.replicas):
                raise ValueError(
                    f"agents.{name}.devices names {len(agent.devices)} devices for {self.replicas} replica(s); "
                    f"give one for all, or {self.replicas}"
                )
        check_served(self.serving, self.agents)
        return self

    @property
    def chain_names(self) -> tuple[str, ...]:
        """The agents of the trained chain in the order of the forward; a critic that only `losses` names comes last."""
        chain = self.chain or tuple(self.agents)
        return (*chain, *(name for name in self.losses if name not in chain))

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each agent's own loss in L, of the agents that add one."""
        return dict(self.losses) or {self.chain_names[-1]: 1.0}

    @property
    def max_in_flight(self) -> int:
        """Most micro-batches between their first forward and their last backward."""
        return self.training.pipeline.in_flight(len(self.chain_names))

    def of_chain(self) -> TrainConfig:
        """Return the configuration with only the agents of the chain, in its order; those that do not train are frozen.

        A frozen agent's parameters and z do not change. Agents outside the chain only serve.
        """
        still = {"trainable": TrainableSettings(scope="none"), "learning_rate": 0.0, "modulation_learning_rate": 0.0}
        agents = {
            name: agent if self.trains is None or name in self.trains else agent.model_copy(update=still)
            for name, agent in ((name, self.agents[name]) for name in self.chain_names)
        }
        servers = {
            name: count for name, count in self.serving.servers.items() if name in {*agents, *self.serving.agents}
        }
        serving = self.serving.model_copy(update={"servers": servers})
        return self.model_copy(update={"agents": agents, "serving": serving})


def stored_config(content: dict[str, Any], source: str) -> TrainConfig:
    """Return the configuration that a run has stored, maybe with keys of an earlier version.

    Raises:
        SettingsError: unknown key, or an invalid value.
    """
    replace_old_keys(content)
    return read_settings(TrainConfig, content, source=source)


def load_config(path: Path, changes: Sequence[str]) -> TrainConfig:
    """Read a YAML file and apply `key.path=value` changes (values in YAML). Old keys are replaced, and a line says so.

    Args:
        path: if it is relative and not in the working directory, it is taken from the checkout.

    Raises:
        SettingsError: unreadable file, unknown key (with the nearest known one), or an invalid value.
    """
    path = _found(path)
    content = read_content(path, changes)
    for line in replace_old_keys(content):
        print(f"mora: {path}: {line}", file=sys.stderr)
    return read_settings(TrainConfig, content, source=str(path) + (" with --set" if changes else ""))


def read_content(path: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Read a YAML file and apply changes; nothing of it is checked. Arguments and errors as of `load_config`."""
    path = _found(path)
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
    make_paths_absolute(content, path.parent)
    return content


def _found(path: Path) -> Path:
    return ROOT / path if not path.exists() and (ROOT / path).exists() else path


def changed_config(content: dict[str, Any], changes: Sequence[str], *, source: str) -> TrainConfig:
    """Return a configuration that a run has stored, with `key.path=value` changes.

    Raises:
        SettingsError: a change is not understood, or its key is unknown, or its value invalid.
    """
    for change in changes:
        _apply(content, change)
    return stored_config(content, source)


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
