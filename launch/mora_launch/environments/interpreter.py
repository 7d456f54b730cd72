"""What an interpreter says about itself, without importing any of its packages."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mora_runtime.errors import EnvironmentFailed, SettingsError
from mora_runtime.schema import Settings, read_settings

from mora_launch.environments.asked_program import ask_program

_SCRIPT = """
import json, platform, sys
from importlib.metadata import distributions
found = {}
for each in distributions():
    name = each.metadata["Name"]
    if name:
        found.setdefault(name.lower().replace("_", "-").replace(".", "-"), each.version)
print(json.dumps({"version": platform.python_version(), "prefix": sys.prefix, "distributions": found}))
"""


class Interpreter(Settings):
    """Version, `sys.prefix`, and the installed distributions with their versions."""

    version: str
    prefix: str
    distributions: dict[str, str]

    @property
    def hash(self) -> str:
        """First 16 hex digits of SHA-256 over all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]


def ask_interpreter(python: Path) -> Interpreter:
    """Run an interpreter and return what it says.

    Raises:
        EnvironmentFailed: it cannot be run, or is no Python with `importlib.metadata`.
    """
    try:
        answer = ask_program([str(python), "-c", _SCRIPT], "", asked=str(python))
        if answer.returncode != 0:
            raise _refused(python)
        return read_settings(Interpreter, json.loads(answer.output), source=str(python))
    except OSError as error:
        raise EnvironmentFailed(
            f"{python}: expected a Python interpreter; it cannot be run: {error.strerror}"
        ) from None
    except (ValueError, RecursionError, SettingsError):
        raise _refused(python) from None


def _refused(python: Path) -> EnvironmentFailed:
    return EnvironmentFailed(f"{python}: expected a Python interpreter of version 3.10 or later")
