"""The adapters that requests may name, and the agents that have them; the servers tell that when they have started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from mora_runtime.errors import RoleFailed

from mora_launch.checkpoints.adapter_catalog import AdapterCatalog
from mora_launch.serving.terms import LoraChoice
from mora_launch.tasks.errors import BadRequest


def check_name(name: str, known: Collection[str]) -> None:
    """Raises: BadRequest: a request names adapters that the configuration does not have."""
    if name not in known:
        names = ", ".join(known) or "none; the configuration has no serving.adapters"
        raise BadRequest("lora", f"got the name {name[:60]!r}, the known ones are {names}")


class AdapterChoices:
    """What the servers of all agents can use of a catalog."""

    def __init__(self, catalog: AdapterCatalog) -> None:
        self.catalog = catalog
        self._agents: defaultdict[str, list[str]] = defaultdict(list)  # by name
        self._unfit: list[str] = []

    @property
    def names(self) -> list[str]:
        """All names that a request may give."""
        return list(self.catalog.entries)

    def agents_of(self, name: str) -> list[str]:
        """Return the agents that have these adapters."""
        return self._agents.get(name, [])

    def learn(self, agent: str, names: Sequence[str], unfit: Sequence[str]) -> None:
        """Take in what a server of an agent can use, and why it cannot use the rest."""
        for name in names:
            if agent not in self._agents[name]:
                self._agents[name].append(agent)
        self._unfit += unfit

    def check_used(self) -> None:
        """Raises: RoleFailed: some adapters fit no agent."""
        for name in self.names:
            if not self.agents_of(name):
                told = next(
                    (line for line in self._unfit if line.startswith(f"adapters `{name}`")), "no server has them"
                )
                raise RoleFailed(f"serving.adapters: `{name}` fits no agent ({told})")

    def chosen(self, lora: LoraChoice | None, agent: str) -> LoraChoice | None:
        """Return what a call of an agent uses of a choice: all of it, or none if the agent has no such adapters.

        With a scale of 0 it uses none, because z of a run is not scaled and would still change the result.
        """
        return lora if lora is not None and lora.scale and agent in self.agents_of(lora.name) else None

    def check(self, lora: LoraChoice, agents: Collection[str]) -> None:
        """Check a choice for a request.

        Args:
            agents: that the request uses.

        Raises:
            BadRequest: the name is unknown, or none of these agents has such adapters.
        """
        check_name(lora.name, self.names)
        having = self.agents_of(lora.name)
        if not set(having) & set(agents):
            others = f"this request uses {', '.join(sorted(agents))}"
            raise BadRequest("lora", f"`{lora.name}` has adapters for {', '.join(having)}, {others}")

    def record(self, lora: LoraChoice) -> dict[str, Any]:
        """Return what is recorded of a choice with its result: also the hashes of the files."""
        return {**lora.model_dump(), "sha256": self.catalog.entries[lora.name].sha256}
