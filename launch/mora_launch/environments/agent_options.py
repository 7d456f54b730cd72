"""Asking an environment to check the options of its agents. Runs its interpreter.

The launcher may not import an environment, whose packages it does not have; each environment answers
`python -m <package>.options` (JSON in, JSON out, no model library imported).
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from mora_runtime.errors import EnvironmentFailed, SettingsError

from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments.venvs import ENVIRONMENTS, ROOT
from mora_launch.limits import CHECK_DEADLINE_S

PACKAGES = {"sd3": "mora_env_sd3", "opensora": "mora_env_opensora"}


@dataclass(frozen=True)
class Component:
    """One model of an agent, for the memory table: parameters, bytes of one, whether its parameters can train."""

    name: str
    num_parameters: int
    dtype_nbytes: int
    trainable: bool


@dataclass(frozen=True)
class CheckedOptions:
    """Options with every default filled in, and the models they name."""

    options: dict[str, Any]
    components: tuple[Component, ...]


def check_options(name: str, agent: AgentConfig) -> CheckedOptions:
    """Have the environment check one agent's options.

    Raises:
        SettingsError: as the environment words it, with the place in the user's config.
    """
    request = json.dumps({"kind": agent.kind, "options": agent.options, "source": f"agents.{name}.options"})
    module = f"{PACKAGES[agent.environment]}.options"
    done = _run(agent.environment, module, request)
    if done.returncode != 0:
        raise EnvironmentFailed(_failure(agent.environment, module, done))
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise SettingsError(answer["error"])
    return CheckedOptions(answer["options"], tuple(Component(**component) for component in answer["components"]))


def _run(environment: str, module: str, request: str) -> subprocess.CompletedProcess[str]:
    command = [str(ENVIRONMENTS[environment].python), "-m", module]
    try:
        return subprocess.run(
            command, input=request, capture_output=True, text=True, check=False, cwd=ROOT, timeout=CHECK_DEADLINE_S
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(
            f"{module} did not answer within {CHECK_DEADLINE_S:.0f} s; is the machine short of memory?"
        ) from None


def _failure(environment: str, module: str, done: subprocess.CompletedProcess[str]) -> str:
    tail = "\n    ".join(done.stderr.strip().splitlines()[-8:])
    return f"environment {environment}: {module} ended with {done.returncode}:\n    {tail}"
