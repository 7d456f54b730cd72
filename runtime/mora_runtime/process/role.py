"""The role of a process in a run: an agent or the coordinator, and its replica. Built and parsed only here."""

from __future__ import annotations

import re

_FORM = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)\.([0-9]{1,6})")


class Role(str):
    """`<name>.<replica>`, for example `agent.0`. A `str`, so that it can be used in paths, JSON and keys.

    Raises:
        ValueError: the text has another form.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Role:
        if _FORM.fullmatch(text) is None:
            raise ValueError(f"expected a role such as agent.0, got {text!r}")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, name: str, replica: int) -> Role:
        """The role of one replica."""
        return cls(f"{name}.{replica}")

    @property
    def name(self) -> str:
        """The agent, or `coordinator`."""
        return self.rpartition(".")[0]

    @property
    def replica(self) -> int:
        """Counted from 0."""
        return int(self.rpartition(".")[2])
