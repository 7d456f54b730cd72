"""A kind of agent: an entry of an environment's table `KINDS`, which `mora_environment.main` serves."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.schema import Settings, nearest_name

from mora_environment.component import Component
from mora_environment.cost import AgentCost, CostRequest
from mora_environment.interface import Interface
from mora_environment.weights.weights_source import WeightsSource

if TYPE_CHECKING:
    import torch
    from mora_runtime import Agent

Build = Callable[[Any, "torch.device"], "Agent"]
TellCost = Callable[[Any, CostRequest], AgentCost]
MakeTiny = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """One kind of agent.

    A callable can be given as text, `module:name`, and is then imported when it is first used. So the check of options
    needs no model library and answers in well under a second.

    Args:
        options: checks the options of a configuration without loading anything. Optional methods: `components()`, a
            list of `Component` for the memory table; `interface()`, an `Interface`, without which the kind cannot be
            in a chain; `weights_folder()`, the folder of the weights that train, if it is not simply the value of the
            option `weights`; `weights_sources()`, a list of `WeightsSource`, the files on the Hub that `./mora models
            fetch` fetches and without which nothing starts.
        build: makes the agent from its options and a device.
        weights: the option that names a folder of trained weights; None = the kind cannot be trained.
        diffusers_component: name of the trained model in the pipeline of diffusers that has it, such as `transformer`;
            `load_lora_weights` of that pipeline can then load exported adapters. None = there is no such pipeline.
        cost: tells what an agent with given options costs for a `CostRequest`, as an `AgentCost`; `cost_meter` counts
            it by running the agent's code on the meta device. Without it, a plan knows only the weights.
        tiny: makes tiny models with random weights in a folder, and returns options that load them. The conformance
            suite uses these options and compares gradients with differences, so nothing may cut the gradient short.
        tiny_tasks: more makers of tiny models by name, for `tiny_task` of a configuration; each pre-trains them. Their
            first argument is the folder, the others are folders of data, by name.
    """

    options: type[Settings]
    build: Build | str
    weights: str | None = None
    diffusers_component: str | None = None
    cost: TellCost | str | None = None
    tiny: MakeTiny | str | None = None
    tiny_tasks: Mapping[str, Callable[..., None] | str] = field(default_factory=dict)

    def components_of(self, options: Settings) -> list[Component]:
        """The models that an agent with these options loads; none if the options do not tell."""
        told: list[Component] | None = _told(options, "components")
        return told or []

    def interface_of(self, options: Settings) -> Interface | None:
        """What an agent with these options takes and gives in a chain; None if it cannot be in one."""
        told: Interface | None = _told(options, "interface")
        return told

    def weights_folder_of(self, options: Settings) -> str | None:
        """The folder or Hub id of the weights that train; None if the kind cannot be trained or does not tell."""
        if self.weights is None:
            return None
        told = _told(options, "weights_folder") or getattr(options, self.weights)
        return None if told is None else str(told)

    def weights_sources_of(self, options: Settings) -> list[WeightsSource]:
        """The files that an agent with these options loads; none if the options do not tell."""
        told: list[WeightsSource] | None = _told(options, "weights_sources")
        return told or []


def _told(options: Settings, method: str) -> Any:
    """The result of an optional method of options; None without it."""
    tell = getattr(options, method, None)
    return None if tell is None else tell()


def kind_named(kinds: Mapping[str, Kind], name: str, *, source: str, package: str) -> Kind:
    """The kind of this name.

    Raises:
        SettingsError: there is none; the message begins with `source`.
        EnvironmentFailed: its entry is wrong, which is a mistake of the environment's author.
    """
    if name not in kinds:
        nearest = nearest_name(name, kinds)
        hint = f"; did you mean `{nearest}`?" if nearest else ""
        raise SettingsError(f"{source}: unknown kind of agent `{name}`{hint} (known: {', '.join(kinds)})")
    kind = kinds[name]
    if kind.weights is not None and kind.weights not in kind.options.model_fields:
        raise EnvironmentFailed(
            f"{package}: kind `{name}`: its table entry says weights=`{kind.weights}`, expected an option of "
            f"{kind.options.__name__}: {', '.join(kind.options.model_fields)}"
        )
    return kind


def imported(target: Callable[..., Any] | str, *, owner: str) -> Callable[..., Any]:
    """The callable itself, or the one that the text `module:name` names; the name may have dots.

    Args:
        owner: package, kind and what the callable is for; the error begins with it.

    Raises:
        EnvironmentFailed: the text names nothing that can be imported.
    """
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    try:
        found: Callable[..., Any] = attrgetter(name)(importlib.import_module(module))
    except Exception as error:
        # model libraries raise any class while they are imported
        told = " ".join(str(error).split())
        raise EnvironmentFailed(f"{owner}: `{target}` cannot be imported: {type(error).__name__}: {told}") from error
    return found
