"""The command `options`: checks one agent's options for the launcher, which cannot import the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mora_runtime.errors import MoraError, SettingsError
from mora_runtime.schema import read_settings

from mora_environment.kind import Kind, kind_named


def answer_request(kinds: Mapping[str, Kind], package: str, request: dict[str, Any]) -> dict[str, Any]:
    """Check `options` of the agent of this `kind`; error messages begin with `source`, the key in the configuration.

    Returns:
        `{"error"}`, or: `options` with all defaults; `components`, the models that they name; `interface`, or None if
        the kind cannot be in a chain; `weights`, the option that names trained weights, or None; `weights_folder`, the
        folder of the weights that these options name, or None if it is not on this machine.
    """
    try:
        return _checked(kinds, package, str(request["kind"]), request["options"], str(request["source"]))
    except MoraError as error:
        return {"error": str(error)}


def _checked(
    kinds: Mapping[str, Kind], package: str, name: str, content: dict[str, Any], source: str
) -> dict[str, Any]:
    kind = kind_named(kinds, name, source=source, package=package)
    options = read_settings(kind.options, content, source=source)
    try:
        components = kind.components_of(options)
        interface = kind.interface_of(options)
        folder = kind.weights_folder_of(options)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from None
    return {
        "options": options.model_dump(mode="json"),
        "components": [component.model_dump() for component in components],
        "interface": None if interface is None else interface.model_dump(),
        "weights": kind.weights,
        "weights_folder": None if folder is None or not Path(folder).is_dir() else str(folder),
    }
