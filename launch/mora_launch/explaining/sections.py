"""The sections of the configuration with their keys, in the order in which the classes have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_origin

from mora_environment.keys.documented_keys import DocumentedKey, documented_keys, first_paragraph, sections_in
from pydantic import BaseModel

from mora_launch.config.train_config import TrainConfig

NAME = "NAME"  # stands for a name that the user chooses


@dataclass(frozen=True)
class Section:
    """A section; keys that are sections themselves come as sections of their own.

    Attributes:
        path: dotted, empty for the top level; `NAME` stands for a chosen name, `[]` for an element of a list.
        same_as: path of the section that has the same keys, or the keys in addition to these; None if there is none.
    """

    path: str
    about: str
    keys: tuple[DocumentedKey, ...]
    same_as: str | None = None

    def path_of(self, key: DocumentedKey) -> str:
        """The dotted path of one of its keys."""
        return f"{self.path}.{key.name}" if self.path else key.name


def all_sections() -> list[Section]:
    """All sections of a configuration; the options of the agents are not among them."""
    return _sections(TrainConfig, "", {})


def _sections(kind: type[BaseModel], path: str, seen: dict[type[BaseModel], str]) -> list[Section]:
    own = Section(path, first_paragraph(kind.__doc__), tuple(documented_keys(kind)))
    if kind in seen:
        return [replace(own, keys=(), same_as=seen[kind])]
    base = next((each for each in kind.__mro__ if each in seen), None)
    if base is not None:
        more = tuple(key for key in own.keys if key.name in kind.__annotations__)
        return [replace(own, keys=more, same_as=seen[base])]
    seen[kind] = path
    found = [replace(own, keys=tuple(key for key in own.keys if not _is_section(kind, key)))]
    for name, field in kind.model_fields.items():
        for each in dict.fromkeys(sections_in(field.annotation)):
            found += _sections(each, _inner_path(path, name, field.annotation), seen)
    return found


def _is_section(kind: type[BaseModel], key: DocumentedKey) -> bool:
    """Whether a key is always a section, so that the section says all about it."""
    return "section" in key.type or (
        key.type == "mapping" and bool(sections_in(kind.model_fields[key.name].annotation))
    )


def _inner_path(path: str, name: str, annotation: Any) -> str:
    inner = f"{path}.{name}" if path else name
    if get_origin(annotation) is dict:
        return f"{inner}.{NAME}"
    return f"{inner}[]" if get_origin(annotation) is tuple else inner
