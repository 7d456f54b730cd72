"""Has an environment check the options of its agents, by running its interpreter.

The launcher cannot import an environment, because it lacks the packages. Instead it runs `python -m <package>.options`
there (JSON in, JSON out, without importing a model library).
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from mora_environment.component import Component
from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.schema import Settings, read_settings

from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments.venvs import ENVIRONMENTS, ROOT
from mora_launch.limits import CHECK_DEADLINE_S

PACKAGES = {"sd3": "mora_env_sd3", "opensora": "mora_env_opensora"}


class CheckedOptions(Settings):
    """An environment's answer for valid options: all defaults filled in, and the models that they name."""

    options: dict[str, Any]
    components: tuple[Component, ...]


class RefusedOptions(Settings):
    """An environment's answer for invalid options."""

    error: str


def check_options(name: str, agent: AgentConfig) -> CheckedOptions:
    """Have the environment check one agent's options.

    Raises:
        SettingsError: the environment's message, with the key in the user's config.
        EnvironmentFailed: the environment's command failed, or gave an unexpected answer.
    """
    request = json.dumps({"kind": agent.kind, "options": agent.options, "source": f"agents.{name}.options"})
    module = f"{PACKAGES[agent.environment]}.options"
    done = _run(agent.environment, module, request)
    if done.returncode != 0:
        raise EnvironmentFailed(_failure(agent.environment, module, done))
    answer = _answer(f"environment {agent.environment}: the answer of {module}", done.stdout)
    if isinstance(answer, RefusedOptions):
        raise SettingsError(answer.error)
    return answer


def _answer(source: str, text: str) -> CheckedOptions | RefusedOptions:
    try:
        content = json.loads(text)
        if isinstance(content, dict) and "error" in content:
            return read_settings(RefusedOptions, content, source=source)
        return read_settings(CheckedOptions, content, source=source)
    except ValueError:
        raise EnvironmentFailed(f"{source}: expected JSON, got {text[:60]!r}") from None
    except SettingsError as error:
        hint = "does the environment have another version of Mora? `./mora env build` builds it again"
        raise EnvironmentFailed(f"{error}\n{hint}") from None


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
