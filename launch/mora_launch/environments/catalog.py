"""Which environments there are: those of the checkout, and those that a configuration adds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from mora_runtime.errors import SettingsError
from mora_runtime.schema import nearest_name

from mora_launch.config.agent_config import AgentConfig
from mora_launch.config.environment_source import EnvironmentSource
from mora_launch.environments.environment import Environment
from mora_launch.environments.manifest import MANIFEST
from mora_launch.environments.venvs import CONTROL, ROOT

Environments = Mapping[str, Environment]


class HasEnvironments(Protocol):
    """A configuration."""

    @property
    def environments(self) -> Mapping[str, EnvironmentSource]:
        """The environments that it adds, by name."""


def checkout_environments() -> Environments:
    """The environments in the folders `env_*` of the checkout, by name.

    Raises:
        SettingsError: a manifest is wrong, or two have one name.
    """
    found: dict[str, Environment] = {}
    for path in sorted(ROOT.glob(f"env_*/{MANIFEST}")):
        environment = Environment.of_folder(path.parent)
        _check_free(environment, found)
        found[environment.name] = environment
    return found


def environments_of(config: HasEnvironments) -> Environments:
    """The environments of the checkout and those of a configuration.

    Raises:
        SettingsError: a manifest is missing or wrong, or two environments have one name.
    """
    found = dict(checkout_environments())
    for name, source in config.environments.items():
        environment = _of_source(name, source)
        _check_free(environment, found)
        found[name] = environment
    return found


def environment_at(text: str) -> Environment:
    """The environment of the checkout with this name, or the one in this folder.

    Raises:
        SettingsError: there is none.
    """
    ours = checkout_environments()
    if text in ours:
        return ours[text]
    if "/" in text or Path(text).is_dir():
        return Environment.of_folder(Path(text).absolute())
    raise SettingsError(unknown_environment(text, ours) + "; a path has a `/` in it")


def find_environment(environments: Environments, name: str, source: str) -> Environment:
    """The environment of this name; SettingsError, which begins with the key `source`, if there is none."""
    if name not in environments:
        raise SettingsError(f"{source}: {unknown_environment(name, environments)}")
    return environments[name]


def check_known(config: HasEnvironments, agents: Mapping[str, Mapping[str, AgentConfig]]) -> None:
    """Refuse agents of environments that do not exist.

    Args:
        agents: by name, of each section of the configuration.

    Raises:
        SettingsError: names the agent, and the nearest environment; or as `environments_of`.
    """
    environments = environments_of(config)
    for section, named in agents.items():
        for name, agent in named.items():
            find_environment(environments, agent.environment, f"{section}.{name}.environment")


def unknown_environment(name: str, known: Iterable[str]) -> str:
    """Say that an environment does not exist, with the nearest one that does."""
    names = sorted(known)
    nearest = nearest_name(name, names)
    hint = f"; did you mean `{nearest}`?" if nearest else ""
    folder = ROOT / f"env_{name}"
    if folder.is_dir():
        hint = f"; {folder.name} has no {MANIFEST}"
    return f"unknown environment `{name}`{hint} (known: {', '.join(names)})"


def _of_source(name: str, source: EnvironmentSource) -> Environment:
    if source.path is not None:
        try:
            return Environment.of_folder(Path(source.path), name)
        except SettingsError as error:
            raise SettingsError(f"environments.{name}.path: {error}") from None
    assert source.python is not None
    assert source.package is not None
    python = Path(source.python)
    if not os.path.isfile(python):  # False also for a name that is too long
        raise SettingsError(f"environments.{name}.python: expected an interpreter, {python} is not a file")
    return Environment(name, source.package, python, f"environments.{name}", None)


def _check_free(environment: Environment, taken: Environments) -> None:
    if environment.name == CONTROL.name:
        raise SettingsError(f"{environment.told_by}: the name `{CONTROL.name}` is the launcher's own; choose another")
    if environment.name in taken:
        raise SettingsError(
            f"two environments have the name `{environment.name}`: {taken[environment.name].told_by} and "
            f"{environment.told_by}; give one of them another name"
        )
