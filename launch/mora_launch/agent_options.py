"""Asking an environment to check the options of its agents, and to make its tiny models. Runs its interpreter.

The launcher may not import an environment, whose packages it does not have; each environment answers two small
commands: `python -m <package>.options` (JSON in, JSON out, no model library imported) and `python -m <package>.tiny`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from mora_runtime.errors import EnvironmentFailed, SettingsError
from rich.console import Console

from mora_launch.agent_config import AgentConfig
from mora_launch.environments import ENVIRONMENTS, ROOT

PACKAGES = {"sd3": "mora_env_sd3", "opensora": "mora_env_opensora"}
_CHECK_DEADLINE_S = 60.0
_TINY_DEADLINE_S = 300.0


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
    done = _run(agent.environment, module, [], stdin=request, deadline_s=_CHECK_DEADLINE_S)
    if done.returncode != 0:
        raise EnvironmentFailed(_failure(agent.environment, module, done))
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise SettingsError(answer["error"])
    return CheckedOptions(answer["options"], tuple(Component(**component) for component in answer["components"]))


def ensure_tiny_models(name: str, agent: AgentConfig, console: Console) -> None:
    """Make the agent's tiny models where its config asks for them and they are absent or made by other code."""
    if agent.tiny_models is None:
        return
    folder = ROOT / agent.tiny_models
    stamp = folder / "mora-stamp.json"
    wanted = {"hash": _maker_hash(agent.environment)}
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        return
    console.print(f"making tiny models of the {name} agent in {agent.tiny_models} ...")
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    module = f"{PACKAGES[agent.environment]}.tiny"
    done = _run(agent.environment, module, [str(temporary)], stdin="", deadline_s=_TINY_DEADLINE_S)
    if done.returncode != 0:
        shutil.rmtree(temporary, ignore_errors=True)
        raise EnvironmentFailed(_failure(agent.environment, module, done))
    (temporary / stamp.name).write_text(json.dumps(wanted), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _maker_hash(environment: str) -> str:
    folder = ENVIRONMENTS[environment].distributions[-1] / PACKAGES[environment]
    digest = hashlib.sha256(ENVIRONMENTS[environment].lock_hash.encode())
    for path in sorted(folder.rglob("tiny*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _run(
    environment: str, module: str, arguments: list[str], *, stdin: str, deadline_s: float
) -> subprocess.CompletedProcess[str]:
    command = [str(ENVIRONMENTS[environment].python), "-m", module, *arguments]
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT, timeout=deadline_s
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(
            f"{module} did not answer within {deadline_s:.0f} s; is the machine short of memory?"
        ) from None


def _failure(environment: str, module: str, done: subprocess.CompletedProcess[str]) -> str:
    tail = "\n    ".join(done.stderr.strip().splitlines()[-8:])
    return f"environment {environment}: {module} ended with {done.returncode}:\n    {tail}"
