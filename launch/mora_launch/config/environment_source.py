"""The section of a configuration for one environment that is not in the checkout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mora_runtime.schema import Settings
from pydantic import model_validator


class EnvironmentSource(Settings):
    """Either a folder with a manifest, or an interpreter that exists and a package in it."""

    path: str | None = None  # folder with `mora-env.toml`, relative to the configuration
    python: str | None = None  # interpreter, relative to the configuration; nothing is built
    package: str | None = None  # what `python -m` runs there; only with `python`

    @model_validator(mode="after")
    def _is_one_of_both(self) -> EnvironmentSource:
        given = [name for name in ("path", "python", "package") if getattr(self, name) is not None]
        if given not in (["path"], ["python", "package"]):
            told = ", ".join(given) or "nothing"
            raise ValueError(f"expected {{path: FOLDER}} or {{python: INTERPRETER, package: NAME}}, got {told}")
        return self


def make_paths_absolute(content: dict[str, Any], folder: Path) -> None:
    """Resolve the paths of a configuration's `environments` that are relative to its folder.

    Content of another shape is left to the check of the configuration.
    """
    environments = content.get("environments")
    for source in environments.values() if isinstance(environments, dict) else ():
        for key in ("path", "python") if isinstance(source, dict) else ():
            if isinstance(source.get(key), str):
                # os's function leaves the name of an unknown user as it is. The path is not resolved: the interpreter
                # of a virtual environment is a link, and the link is its identity.
                source[key] = str((folder / os.path.expanduser(source[key])).absolute())
