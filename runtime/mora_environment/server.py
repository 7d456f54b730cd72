"""The command `serve`: the server of one role, with the agents that its settings name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from mora_runtime import Agent, serve
from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.rpc.server_settings import AgentSettings
from mora_runtime.schema import read_settings
from mora_training.adapters import load_adapters
from mora_training.optimizer_agent import PARTICIPANT, OptimizerAgent, Trainable
from mora_training.training_settings import TrainingServerSettings

from mora_environment.adapters.adapter_agent import AdapterAgent
from mora_environment.adapters.names import ADAPTERS
from mora_environment.job_folder import shared_folders
from mora_environment.kind import Kind, imported, kind_named
from mora_environment.promised_methods import check_methods, check_trainable


def serve_kinds(kinds: Mapping[str, Kind], package: str, words: Sequence[str]) -> int:
    """Serve until asked to stop; returns the exit code.

    Args:
        words: `--settings FILE --supervisor-fd N`.
    """
    sys.argv[1:] = words
    settings = TrainingServerSettings.from_argv()
    builder = AgentBuilder(kinds, package)
    builder.import_kinds({agent.kind for agent in settings.agents.values()})
    return serve(settings, builder.build)


class AgentBuilder:
    """Makes the agents of one server, and its participant when it trains."""

    def __init__(self, kinds: Mapping[str, Kind], package: str) -> None:
        self._kinds = kinds
        self._package = package
        self._failed: dict[str, EnvironmentFailed] = {}  # by kind; a second import would fail for another reason

    def import_kinds(self, names: set[str]) -> None:
        """Import the modules of these kinds, before the server sets up its logs and cores.

        A module that cannot be imported is reported by `build`, because only the running server can report to the
        launcher.
        """
        for name in sorted(names & set(self._kinds)):
            try:
                self._maker(name, self._kinds[name])
            except EnvironmentFailed as error:
                self._failed[name] = error

    def build(self, settings: TrainingServerSettings) -> dict[str, Agent]:
        """Load the agents.

        Raises:
            SettingsError: an unknown kind, or options that do not fit.
            EnvironmentFailed: a table entry is wrong: its builder cannot be imported, or the agent lacks a method.
        """
        device = torch.device(settings.device)
        agents: dict[str, Agent] = {}
        for name, agent in settings.agents.items():
            shared = None if settings.training is None else Path(settings.run_dir) / "cache" / name
            with shared_folders(shared):
                agents[name] = self.make(agent.kind, agent.options, device, source=f"agents.{name}")
            if agent.adapters is not None:
                self._adapt(agents[name], name, agent, trains=settings.training is not None)
            if agent.allowed_adapters:
                check_trainable(agents[name], self._kinds[agent.kind], self._owner(agent.kind))
                module = cast(torch.nn.Module, agents[name].module())
                agents[ADAPTERS] = AdapterAgent(module, agent.allowed_adapters)
        if settings.training is not None:
            own, kind = agents[settings.name], settings.agents[settings.name].kind
            check_trainable(own, self._kinds[kind], self._owner(kind))
            checkpoints = Path(settings.run_dir) / "checkpoints"
            agents[PARTICIPANT] = OptimizerAgent(
                cast(Trainable, own), settings.training, device, checkpoints, settings.name
            )
        return agents

    def make(self, name: str, content: Mapping[str, Any], device: torch.device, *, source: str) -> Agent:
        """Load one agent and check that it has the methods which its interface promises."""
        kind = kind_named(self._kinds, name, source=f"{source}.kind", package=self._package)
        options = read_settings(kind.options, content, source=f"{source}.options")
        agent: Agent = self._maker(name, kind)(options, device)
        interface = kind.interface_of(options)
        if interface is not None:
            check_methods(agent, interface, self._owner(name))
        return agent

    def _adapt(self, agent: Agent, name: str, settings: AgentSettings, *, trains: bool) -> None:
        """Give an agent's model the adapters of its settings."""
        if trains:
            raise SettingsError(f"agents.{name}.adapters: expected none in a server that trains")
        check_trainable(agent, self._kinds[settings.kind], self._owner(settings.kind))
        load_adapters(cast(torch.nn.Module, agent.module()), Path(str(settings.adapters)))

    def _maker(self, name: str, kind: Kind) -> Any:
        if name in self._failed:
            raise self._failed[name]
        return imported(kind.build, owner=f"{self._owner(name)}: its builder")

    def _owner(self, name: str) -> str:
        return f"{self._package}: kind `{name}`"
