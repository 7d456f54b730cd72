"""Strict, frozen settings: the base of every configuration class, and the functions that read one.

The launcher uses it for the user's YAML, every role process for its resolved file. Importable without torch.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mora_runtime.errors import SettingsError

PositiveInt = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def read_settings(kind: type[SettingsT], data: Mapping[str, Any], *, source: str) -> SettingsT:
    """Check `data` against `kind`.

    Raises:
        SettingsError: one line per fault: the place in `source`, what was expected, what came, and for an unknown key
            the nearest key that exists.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = [_fault(kind, fault["loc"], fault["type"], fault["msg"], fault["input"]) for fault in error.errors()]
        lines = "\n".join(f"  {line}" for line in faults)
        raise SettingsError(f"{source} is not a valid {kind.__name__}:\n{lines}") from None


def settings_from_argv(kind: type[SettingsT]) -> tuple[SettingsT, int | None]:
    """Parse the command line `--settings FILE [--supervisor-fd N]` and return the settings and the descriptor.

    Raises:
        SettingsError: as `read_settings`.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--supervisor-fd", type=int, default=None)
    arguments = parser.parse_args()
    content = json.loads(arguments.settings.read_text(encoding="utf-8"))
    return read_settings(kind, content, source=str(arguments.settings)), arguments.supervisor_fd


def _fault(kind: type[BaseModel], location: tuple[int | str, ...], category: str, message: str, value: Any) -> str:
    where = ".".join(str(part) for part in location) or "(top level)"
    if category == "extra_forbidden":
        nearest = nearest_name(str(location[-1]), _keys_at(kind, location[:-1]))
        hint = f"; did you mean `{nearest}`?" if nearest else ""
        return f"{where}: unknown key{hint}"
    if category == "value_error":
        message = message.removeprefix("Value error, ")
        if isinstance(value, Mapping):  # a check of several keys; its message names them
            return f"{where}: {message}" if location else message
    elif category in ("model_type", "dict_type"):
        message = "input should be a mapping"
    else:
        message = message.replace("tuple", "list").replace("Tuple", "List")  # the word of YAML and JSON
    return f"{where}: {message[0].lower()}{message[1:]}" + ("" if category == "missing" else f", got {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} with too many levels"
    return text if len(text) <= 60 else text[:57] + "..."


def nearest_name(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most similar to `name`, or None when none is similar enough."""
    found = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return found[0] if found else None


def _keys_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of every settings class that is possible at `location` under `kind`."""
    kinds = [kind]
    for part in location:
        annotations = [k.model_fields[str(part)].annotation for k in kinds if str(part) in k.model_fields]
        if annotations:
            kinds = [found for annotation in annotations for found in _models_in(annotation)]
        # a part that is not a field is a mapping key, a list index or the tag of a union: the same classes still apply
    return [name for found in kinds for name in found.model_fields]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    # in Python 3.10 `dict[str, X]` counts as a type, and is none for `issubclass`
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
