"""The options of kinds of agents in words, as their environments tell them."""

from __future__ import annotations

import json

from mora_environment.keys.documented_keys import DocumentedKey
from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.schema import Settings
from pydantic import TypeAdapter, ValidationError

from mora_launch.environments.asked_environment import ask_environment
from mora_launch.environments.environment import Environment


class KindOptions(Settings):
    """What an environment tells of one kind."""

    about: str
    keys: tuple[DocumentedKey, ...]


_ANSWER = TypeAdapter(dict[str, KindOptions])


def ask_kinds(environment: Environment) -> dict[str, KindOptions]:
    """Ask an environment, which must be built, for the options of all its kinds.

    Raises:
        EnvironmentFailed: it gave no answer, or an unexpected one.
    """
    asked = f"environment {environment.name}: `python -m {environment.package} keys`"
    said = ask_environment(environment, "keys", "", asked=asked)
    try:
        return _ANSWER.validate_python(json.loads(said))
    except (ValueError, ValidationError, RecursionError):
        raise EnvironmentFailed(f"{asked}: expected its kinds with their options, got something else") from None


def options_of(kind: str, environment: Environment) -> KindOptions:
    """The options of one kind. Raises SettingsError if the environment has no such kind."""
    kinds = ask_kinds(environment)
    if kind not in kinds:
        raise SettingsError(
            f"environment {environment.name}: unknown kind of agent `{kind}` (known: {', '.join(kinds)})"
        )
    return kinds[kind]
