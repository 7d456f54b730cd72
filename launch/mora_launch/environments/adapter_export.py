"""Has an environment write the LoRA adapters of its agent in a format of other libraries, in its own interpreter."""

from __future__ import annotations

import json
from pathlib import Path

from mora_runtime.errors import CheckpointError, EnvironmentFailed, SettingsError
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import Settings, read_settings

from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments.agent_options import options_request
from mora_launch.environments.asked_environment import ask_environment
from mora_launch.environments.environment import Environment
from mora_launch.limits import EXPORT_DEADLINE_S

_MAX_LINE_LENGTH = 300


class _ExportAnswer(Settings):
    """An environment's answer."""

    protocol: int
    error: str | None = None


def ask_to_export(
    name: str, agent: AgentConfig, environment: Environment, *, adapters: Path, target: Path, adapter_format: str
) -> None:
    """Have the environment write an agent's adapters into the empty folder `target`.

    Args:
        adapters: folder of a checkpoint's adapters, whose hashes have been checked.

    Raises:
        CheckpointError: the environment refused, in its own words.
        EnvironmentFailed: its command failed, or gave an unexpected answer.
    """
    asked = f"environment {environment.name}: `python -m {environment.package} export` for agents.{name}"
    request = {
        **options_request(name, agent), "source": f"agents.{name}", "format": adapter_format,
        "folder": str(adapters.absolute()), "target": str(target.absolute()),
    }  # fmt: skip
    said = ask_environment(environment, "export", json.dumps(request), asked=asked, deadline_s=EXPORT_DEADLINE_S)
    answer = _answer(said, asked)
    if answer.error is not None:
        raise CheckpointError(answer.error)


def _answer(said: str, asked: str) -> _ExportAnswer:
    try:
        return read_settings(_ExportAnswer, json.loads(said), source=f"{asked}: its answer")
    except (ValueError, RecursionError, SettingsError) as error:
        raise EnvironmentFailed(
            f"{asked}: expected an answer as JSON: {shown_line(str(error), _MAX_LINE_LENGTH)}"
        ) from None
