"""What `mora doctor` says about the roles of a configuration: interpreter, prefix and torch of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mora_runtime.errors import EnvironmentFailed
from mora_runtime.process.role import Role

from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.environment import Environment
from mora_launch.environments.interpreter import ask_interpreter
from mora_launch.environments.venvs import CONTROL
from mora_launch.jobs.finding import Finding


def role_findings(config: TrainConfig) -> Iterator[Finding]:
    """Yield one finding for each process of a job: every agent's servers, then the coordinators."""
    environments = environments_of(config)
    found: dict[Path, str | EnvironmentFailed] = {}
    for replica in range(config.replicas):
        for name, agent in config.agents.items():
            environment = environments[agent.environment]
            yield _finding(Role.of(name, replica), environment.name, environment.python, _fix(environment), found)
        fix = f"./mora env build {CONTROL.name}"
        yield _finding(Role.of("coordinator", replica), CONTROL.name, CONTROL.python, fix, found)


def _fix(environment: Environment) -> str:
    if environment.venv is None:
        return f"correct `python` in {environment.told_by} of the configuration"
    return f"./mora env build {environment.build_name}"


def _finding(
    role: Role, environment: str, python: Path, fix: str, found: dict[Path, str | EnvironmentFailed]
) -> Finding:
    if python not in found:
        found[python] = _described(python)
    described = found[python]
    if isinstance(described, EnvironmentFailed):
        return Finding(f"role {role} (environment {environment}): {described}", fix)
    return Finding(f"role {role} (environment {environment}): {python}, {described}")


def _described(python: Path) -> str | EnvironmentFailed:
    try:
        told = ask_interpreter(python)
    except EnvironmentFailed as error:
        return error
    return f"Python {told.version}, prefix {told.prefix}, torch {told.distributions.get('torch', 'is not installed')}"
