"""What `mora config` prints: keys with type, default and meaning, and with a configuration also their values."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mora_environment.keys.documented_keys import DocumentedKey, documented_keys
from mora_runtime.errors import SettingsError
from mora_runtime.schema import nearest_name

from mora_launch.config.foreign_yaml import YamlRefused, parse_yaml
from mora_launch.config.train_config import TrainConfig
from mora_launch.environments.catalog import environments_of
from mora_launch.explaining.kind_options import options_of
from mora_launch.explaining.sections import NAME, Section, all_sections

_INDENT = "    "
_ABSENT = object()


@dataclass(frozen=True)
class Line:
    """One key with its path in a configuration.

    Attributes:
        value: in the configuration, as in JSON; `_ABSENT` without a configuration.
    """

    path: str
    key: DocumentedKey
    value: Any = _ABSENT

    @property
    def is_changed(self) -> bool:
        """The configuration has another value than the default."""
        return self.value is not _ABSENT and (self.key.is_required or self.value != self.key.default)


def explained(key: str | None, width: int) -> Iterator[str]:
    """Lines that explain every key, or one key or section."""
    lines = [Line(section.path_of(each), each) for section in _complete_sections() for each in section.keys]
    yield from _told(_chosen(lines, key), width)


def explained_config(config: TrainConfig, key: str | None, width: int) -> Iterator[str]:
    """The values of a configuration, or all about one of its keys or sections."""
    lines = list(_lines_of(config, key))
    if key is None:
        for line in lines:
            mark = "*" if line.is_changed else " "
            yield f"{mark} {line.path}: {_shown(line.value)}"
        yield "(* differs from the default; `mora config CONFIG KEY` explains a key)"
        return
    yield from _told(_chosen(lines, key), width)


def _complete_sections() -> list[Section]:
    """All sections, each with the keys of the one that it repeats."""
    found: dict[str, Section] = {}
    for section in all_sections():
        repeated = () if section.same_as is None else found[section.same_as].keys
        names = {key.name for key in section.keys}
        keys = (*(key for key in repeated if key.name not in names), *section.keys)
        found[section.path] = Section(section.path, section.about, keys)
    return list(found.values())


def _lines_of(config: TrainConfig, wanted: str | None) -> Iterator[Line]:
    content = config.model_dump(mode="json")
    unchanged = {key.name: key.default for key in documented_keys(TrainConfig)}
    for section in _complete_sections():
        parts = section.path.split(".") if section.path else []
        defaults = dict(_matches(parts, unchanged, ""))  # of sections inside others, which may differ from the class's
        for path, values in _matches(parts, content, ""):
            for key in section.keys:
                whole = f"{path}.{key.name}" if path else key.name
                if key.name == "options" and isinstance(values.get("kind"), str):
                    yield from _option_lines(config, whole, values, wanted)
                else:
                    default = defaults.get(path, {}).get(key.name, key.default)
                    yield Line(whole, key.model_copy(update={"default": default}), values.get(key.name))


def _matches(parts: Sequence[str], content: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Paths and values of the sections of a configuration that a section of the classes stands for."""
    if not parts:
        if isinstance(content, Mapping):
            yield path, content
        return
    if not isinstance(content, Mapping):
        return
    first, *rest = parts
    if first == NAME:
        for name, inner in content.items():
            yield from _matches(rest, inner, f"{path}.{name}")
    elif first.endswith("[]"):
        for number, inner in enumerate(content.get(first[:-2]) or ()):
            yield from _matches(rest, inner, f"{path}.{first[:-2]}[{number}]".lstrip("."))
    else:
        yield from _matches(rest, content.get(first), f"{path}.{first}".lstrip("."))


def _option_lines(config: TrainConfig, path: str, agent: Mapping[str, Any], wanted: str | None) -> Iterator[Line]:
    """The options of an agent. Its environment is only asked for their meaning where they are wanted."""
    values = agent["options"]
    if wanted is None or not (wanted.startswith(path) or path.startswith(f"{wanted}.")):
        for name, value in values.items():
            yield Line(f"{path}.{name}", DocumentedKey(name=name, type="", is_required=True), value)
        return
    for key in options_of(agent["kind"], environments_of(config)[agent["environment"]]).keys:
        yield Line(f"{path}.{key.name}", key, values.get(key.name, key.default))


def _chosen(lines: Sequence[Line], key: str | None) -> list[Line]:
    """The lines of a key, or of a section.

    Raises:
        SettingsError: there is none; the message has the nearest one.
    """
    if key is None:
        return list(lines)
    found = [line for line in lines if _is_at(line.path, key)]
    if not found:
        known = {".".join(line.path.split(".")[:depth]) for line in lines for depth in range(1, 6)}
        nearest = nearest_name(key, known)
        hint = f"; did you mean `{nearest}`?" if nearest else ""
        raise SettingsError(f"{key}: unknown key{hint} (`mora config` lists all keys)")
    return found


def _is_at(path: str, key: str) -> bool:
    """Whether the path is this key or in this section; `NAME` in the path stands for any name."""
    has, asked = path.split("."), key.split(".")
    return len(asked) <= len(has) and all(
        mine in (theirs, NAME) or mine.split("[")[0] == theirs for mine, theirs in zip(has, asked, strict=False)
    )


def _told(lines: Sequence[Line], width: int) -> Iterator[str]:
    for line in lines:
        yield line.path if line.value is _ABSENT else f"{line.path}: {_shown(line.value)}"
        default = "required" if line.key.is_required else f"default {_shown(line.key.default)}"
        yield from _wrapped(f"{line.key.type}; {default}" if line.key.type else "set by the configuration", width)
        if line.key.meaning:
            yield from _wrapped(line.key.meaning.replace("None", "null"), width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(40, width), initial_indent=_INDENT, subsequent_indent=_INDENT)


def _shown(value: Any) -> str:
    """A value as YAML takes it on one line."""
    return value if isinstance(value, str) and _is_plain(value) else json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """Whether YAML takes the text for itself, without quotes."""
    try:
        return bool(parse_yaml(text) == text)
    except YamlRefused:
        return False
