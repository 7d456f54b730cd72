"""Has an environment check the options of its agents, by running its interpreter.

The launcher cannot import an environment, because it lacks the packages. Instead it runs `python -m PACKAGE options`
there: JSON in, JSON out, without importing a model library.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mora_environment.component import Component
from mora_environment.interface import Interface
from mora_environment.weights.missing_weights import MissingWeights
from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import Settings, nearest_name, read_settings
from mora_runtime.wire.messages import PROTOCOL_VERSION

from mora_launch.config.agent_config import AgentConfig
from mora_launch.environments.asked_program import Answer, ask_program
from mora_launch.environments.environment import Environment
from mora_launch.environments.venvs import ROOT

_NO_MODULE = re.compile(r"No module named '?([\w.]+)'?")
_MAX_LINE_LENGTH = 300


class CheckedOptions(Settings):
    """An environment's answer for valid options."""

    protocol: int  # version of the wire protocol that its runtime speaks
    options: dict[str, Any]  # with all defaults
    components: tuple[Component, ...]  # the models that the options name
    interface: Interface | None  # what the agent takes and gives in a chain; None if it cannot be in one
    weights: str | None  # the option that names trained weights; None if the kind cannot be trained
    weights_folder: str | None  # of the weights that the options name; None if they are not on this machine
    missing: tuple[MissingWeights, ...] = ()  # what `./mora models fetch` has to bring before a server can start

    @property
    def has_optimizer(self) -> bool:
        """Whether its server has an optimizer and writes checkpoints: its kind has weights and is no critic."""
        return self.weights is not None and self.interface is not None and not self.interface.is_critic


class RefusedOptions(Settings):
    """An environment's answer for invalid options."""

    protocol: int
    error: str


def options_request(name: str, agent: AgentConfig) -> dict[str, Any]:
    """The request about one agent's options; `source` begins the environment's error messages."""
    source = f"agents.{name}.options"
    return {"kind": agent.kind, "options": agent.options, "source": source, "weights": agent.weights}


def check_options(name: str, agent: AgentConfig, environment: Environment) -> CheckedOptions:
    """Have the environment check one agent's options.

    Raises:
        SettingsError: the environment's message, with the key in the user's config.
        EnvironmentFailed: the environment's command failed, gave an unexpected answer, or speaks another protocol.
    """
    done = _run(environment, json.dumps(options_request(name, agent)))
    if done.returncode != 0:
        raise EnvironmentFailed(_failure(environment, done.complaints, done.returncode))
    answer = _answer(environment, done.output)
    if isinstance(answer, RefusedOptions):
        raise SettingsError(answer.error)
    return answer


def _answer(environment: Environment, text: str) -> CheckedOptions | RefusedOptions:
    source = f"environment {environment.name}: the answer of `{_command(environment)}`"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise EnvironmentFailed(f"{source}: expected JSON, got {text[:60]!r}") from None
    _check_protocol(environment, content)
    try:
        if isinstance(content, dict) and "error" in content:
            return read_settings(RefusedOptions, content, source=source)
        return read_settings(CheckedOptions, content, source=source)
    except SettingsError as error:
        raise EnvironmentFailed(f"{error}\n{_how_to_update(environment)}") from None


def _check_protocol(environment: Environment, content: object) -> None:
    """Compare the versions first: an answer of another version may have other keys as well."""
    spoken = content.get("protocol") if isinstance(content, dict) else None
    if spoken != PROTOCOL_VERSION:
        raise EnvironmentFailed(
            f"environment {environment.name}: expected a mora_runtime with protocol version {PROTOCOL_VERSION}, as the "
            f"launcher has it, got {spoken if isinstance(spoken, int) else 'none'}; {_how_to_update(environment)}"
        )


def _how_to_update(environment: Environment) -> str:
    if environment.venv is not None:
        return f"`./mora env build {environment.build_name}` installs the runtime of this checkout"
    return f"`{environment.python} -m pip install {ROOT / 'runtime'}[server,training]` installs that of this checkout"


def _command(environment: Environment) -> str:
    return f"python -m {environment.package} options"


def _run(environment: Environment, request: str) -> Answer:
    command = [str(environment.python), "-m", environment.package, "options"]
    asked = f"environment {environment.name}: `{_command(environment)}`"
    try:
        return ask_program(command, request, asked=asked, folder=ROOT)
    except OSError as error:
        raise EnvironmentFailed(
            f"environment {environment.name}: {environment.python} cannot be run: {error.strerror}"
        ) from None


def _failure(environment: Environment, output: str, code: int) -> str:
    """Say why the package could not answer, in one line: the last one of its output."""
    lines = output.strip().splitlines() or [f"it ended with {code} and said nothing"]
    said = shown_line(lines[-1], _MAX_LINE_LENGTH)
    missing = _NO_MODULE.search(said)
    advice = _advice(environment, missing[1] if missing else None)
    return f"environment {environment.name}: `{_command(environment)}` failed: {said}; {advice}"


def _advice(environment: Environment, missing: str | None) -> str:
    if missing is None:
        return f"run `{environment.python} -m {environment.package} kinds` to see all of it"
    if missing.partition(".")[0] == "mora_runtime" or missing.partition(".")[0] == "mora_environment":
        return _how_to_update(environment)
    if environment.package == missing or environment.package.startswith(missing + "."):
        nearest = nearest_name(environment.package, _packages(environment))
        hint = f"did you mean `{nearest}`? " if nearest else ""
        return f"{hint}correct `package` in {environment.told_by}, or install it"
    where = "to " + str(environment.venv.lock_file) if environment.venv else "to its environment"
    return f"add the distribution that contains it {where}"


def _packages(environment: Environment) -> list[str]:
    """Packages with a `__main__` in the folders that the environment installs."""
    folders: tuple[Path, ...] = () if environment.venv is None else environment.venv.distributions
    found = [path for each in folders for place in (each, each / "src") for path in place.glob("*/__main__.py")]
    return [path.parent.name for path in found]
