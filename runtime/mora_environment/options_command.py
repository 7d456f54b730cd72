"""The command `options`: checks one agent's options for the launcher, which cannot import the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mora_runtime.errors import MoraError, SettingsError
from mora_runtime.schema import Settings, read_settings
from mora_runtime.wire.messages import PROTOCOL_VERSION

from mora_environment.kind import Kind, kind_named
from mora_environment.weights.presence import missing_weights


def answer_request(kinds: Mapping[str, Kind], package: str, request: dict[str, Any]) -> dict[str, Any]:
    """Check `options` of the agent of this `kind`; error messages begin with `source`, the key in the configuration.

    `weights` of the request, if it is there, is a folder of trained weights to use in place of those in the options.

    Returns:
        `{"error"}`, or: `options` with all defaults; `components`, the models that they name; `interface`, or None if
        the kind cannot be in a chain; `weights`, the option that names trained weights, or None; `weights_folder`, the
        folder of the weights that these options name, or None if it is not on this machine; `missing`, the weights on
        the Hub that must be fetched first. Always with `protocol`, the version of the wire protocol that this
        environment's runtime speaks.
    """
    try:
        answer = _told(*read_request(kinds, package, request), str(request["source"]))
    except MoraError as error:
        answer = {"error": str(error)}
    return {"protocol": PROTOCOL_VERSION, **answer}


def read_request(kinds: Mapping[str, Kind], package: str, request: dict[str, Any]) -> tuple[Kind, Settings]:
    """The kind and the checked options of a request.

    Raises:
        SettingsError: there is no such kind, or the options do not fit.
    """
    source = str(request["source"])
    kind = kind_named(kinds, str(request["kind"]), source=source, package=package)
    return kind, read_settings(kind.options, _with_weights(kind, request), source=source)


def _with_weights(kind: Kind, request: dict[str, Any]) -> dict[str, Any]:
    """The requested options, in which the option for weights names the requested folder."""
    folder = request.get("weights")
    if folder is None:
        return dict(request["options"])
    if kind.weights is None:
        raise SettingsError(
            f"{request['source']}: expected a kind that can load trained weights, got `{request['kind']}`, which has "
            "no option for them"
        )
    return {**request["options"], kind.weights: folder}


def _told(kind: Kind, options: Settings, source: str) -> dict[str, Any]:
    try:
        components = kind.components_of(options)
        interface = kind.interface_of(options)
        folder = kind.weights_folder_of(options)
        missing = missing_weights(kind.weights_sources_of(options), source)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from None
    return {
        "options": options.model_dump(mode="json"),
        "components": [component.model_dump() for component in components],
        "interface": None if interface is None else interface.model_dump(),
        "weights": kind.weights,
        "weights_folder": None if folder is None or not Path(folder).is_dir() else str(folder),
        "missing": [each.model_dump(mode="json") for each in missing],
    }
