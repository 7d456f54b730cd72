"""What `mora doctor` says about the roles of a configuration: device, interpreter, prefix and torch of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mora_runtime.errors import EnvironmentFailed
from mora_runtime.process.role import Role

from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.catalog import environments_of
from mora_launch.environments.environment import Environment
from mora_launch.environments.interpreter import Interpreter, ask_interpreter
from mora_launch.environments.venvs import CONTROL
from mora_launch.jobs.cuda_driver import CudaDriver
from mora_launch.jobs.finding import Finding


def role_findings(config: TrainConfig, driver: CudaDriver) -> Iterator[Finding]:
    """Yield one finding for each process of a job: every agent's servers, then the coordinators."""
    environments = environments_of(config)
    asked = _Asked()
    for replica in range(config.replicas):
        for name, agent in config.agents.items():
            environment = environments[agent.environment]
            role, device = Role.of(name, replica), agent.device(replica)
            found = asked.finding(role, device, environment.name, environment.python, _fix(environment))
            yield _with_device(found, device, driver, asked.interpreter(environment.python))
        fix = f"./mora env build {CONTROL.name}"
        yield asked.finding(Role.of("coordinator", replica), "cpu", CONTROL.name, CONTROL.python, fix)


def _fix(environment: Environment) -> str:
    if environment.venv is None:
        return f"correct `python` in {environment.told_by} of the configuration"
    return f"./mora env build {environment.build_name}"


def _with_device(
    found: Finding, device: str, driver: CudaDriver, interpreter: Interpreter | EnvironmentFailed
) -> Finding:
    """Add why the role cannot use its GPU, if it cannot."""
    if not device.startswith("cuda:") or isinstance(interpreter, EnvironmentFailed):
        return found
    return Finding(found.what, driver.problem_of(device, interpreter.distributions) or "")


class _Asked:
    """What interpreters have said, each asked once."""

    def __init__(self) -> None:
        self._answers: dict[Path, Interpreter | EnvironmentFailed] = {}

    def interpreter(self, python: Path) -> Interpreter | EnvironmentFailed:
        if python not in self._answers:
            try:
                self._answers[python] = ask_interpreter(python)
            except EnvironmentFailed as error:
                self._answers[python] = error
        return self._answers[python]

    def finding(self, role: Role, device: str, environment: str, python: Path, fix: str) -> Finding:
        told = self.interpreter(python)
        if isinstance(told, EnvironmentFailed):
            return Finding(f"role {role} (environment {environment}): {told}", fix)
        torch = told.distributions.get("torch", "is not installed")
        described = f"Python {told.version}, prefix {told.prefix}, torch {torch}"
        return Finding(f"role {role} (environment {environment}): {python}, {described}, on {device}")
