"""The command `tiny`: makes the tiny models of a kind."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mora_runtime.errors import SettingsError
from mora_runtime.schema import nearest_name

from mora_environment.kind import Kind, imported, kind_named


def make_tiny(
    kinds: Mapping[str, Kind], package: str, name: str, folder: Path, task: str | None, named: Sequence[str]
) -> dict[str, Any] | None:
    """Write tiny models of a kind into a folder.

    Args:
        task: one of the kind's `tiny_tasks`; None = random weights.
        named: words `--NAME FOLDER`, the task's folders of data.

    Returns:
        options that load them, if the maker tells.

    Raises:
        SettingsError: there is no such kind, maker or data.
    """
    kind = kind_named(kinds, name, source=f"{package} tiny", package=package)
    owner = f"{package}: kind `{name}`"
    maker = _maker(kind, owner, task)
    data = _folders(named)
    if task is None and data:
        raise SettingsError(f"{owner}: random tiny models take no data, got --{next(iter(data))}; name a --task")
    expected = list(inspect.signature(maker).parameters)[1:] if task is not None else []
    if sorted(data) != sorted(expected):
        told = " ".join(f"--{each} FOLDER" for each in expected) or "no data"
        got = " ".join(f"--{each}" for each in data) or "none"
        raise SettingsError(f"{owner}: tiny task `{task}` expects {told}, got {got}")
    options: dict[str, Any] | None = maker(folder, **data)
    return options


def _maker(kind: Kind, owner: str, task: str | None) -> Any:
    if task is None:
        if kind.tiny is None:
            raise SettingsError(f"{owner} has no maker of tiny models; its entry in KINDS has no `tiny`")
        return imported(kind.tiny, owner=f"{owner}: its maker of tiny models")
    if task not in kind.tiny_tasks:
        nearest = nearest_name(task, kind.tiny_tasks)
        hint = f"; did you mean `{nearest}`?" if nearest else ""
        known = ", ".join(kind.tiny_tasks) or "none"
        raise SettingsError(f"{owner} has no tiny task `{task}`{hint} (known: {known})")
    return imported(kind.tiny_tasks[task], owner=f"{owner}: its maker of tiny models for `{task}`")


def _folders(named: Sequence[str]) -> dict[str, Path]:
    names, folders = named[::2], named[1::2]
    if len(names) != len(folders) or not all(name.startswith("--") and len(name) > 2 for name in names):
        raise SettingsError(f"expected data as `--NAME FOLDER`, got {' '.join(named)}")
    return {name[2:].replace("-", "_"): Path(folder) for name, folder in zip(names, folders, strict=True)}
