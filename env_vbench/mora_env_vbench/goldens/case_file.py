"""Files of reference values: NAME.json with cases and their arguments, NAME.data.safetensors with their tensors."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file
from torch import Tensor

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Case:
    """One case of a file."""

    name: str
    description: str
    args: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    values: Any

    def number(self, pattern: str, default: _Number) -> _Number:
        r"""A number that only the description tells, such as `(\d+) blocks`, of the type of the default."""
        found = re.search(pattern, self.description)
        return default if found is None else type(default)(found[1])

    def numbers(self, pattern: str) -> list[int]:
        """All numbers that match; the description tells them in the order of the networks."""
        return [int(number) for number in re.findall(pattern, self.description)]


class CaseFile:
    """A file of reference values.

    Args:
        path: of NAME.json.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.stem
        self.meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))

    @property
    def kind(self) -> str:
        return str(self.meta.get("kind"))

    @cached_property
    def cases(self) -> list[Case]:
        """All cases with their tensors."""
        data = self._path.with_name(f"{self.name}.data.safetensors")
        tensors = load_file(data) if data.is_file() else {}

        def of(case: str, part: str) -> dict[str, Tensor]:
            prefix = f"{case}/{part}/"
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        return [
            Case(
                name=entry["name"],
                description=entry.get("description", ""),
                args=entry.get("args", {}),
                inputs=of(entry["name"], "inputs"),
                outputs=of(entry["name"], "outputs"),
                values=entry.get("values", {}),
            )
            for entry in self.meta.get("cases", [])
        ]

    def sibling(self, kind: str) -> CaseFile:
        """The file of another kind in the same folder; of several, the one whose name is most like this one's.

        Raises:
            FileNotFoundError: there is none.
        """
        files = [CaseFile(path) for path in sorted(self._path.parent.glob("*.json"))]
        found = [file for file in files if file.kind == kind]
        if not found:
            raise FileNotFoundError(f"{self._path}: expected a file of kind {kind} next to it")
        return max(found, key=lambda file: SequenceMatcher(None, file.name, self.name).ratio())
