"""The figures of a part, in a file from the moment they are known: a part that is killed leaves those that it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Figures:
    """Figures by name.

    Args:
        file: is replaced at each change.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def add(self, **values: Any) -> None:
        """Add or replace figures."""
        self._values.update(values)
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._values), encoding="utf-8")
        temporary.rename(self._file)


def read_figures(file: Path) -> dict[str, Any]:
    """The figures in a file; none if the part wrote none."""
    if not file.exists():
        return {}
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return values
