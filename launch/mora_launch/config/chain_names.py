"""Names in `agents`, `chain`, `trains` and `losses`: which may be used, and that each names an agent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

from mora_runtime.schema import nearest_name
from pydantic import Field

AgentName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
# Names of other roles of a job, of a server's own agents, and of files of a checkpoint.
_RESERVED = ("adapters", "candidates", "control", "coordinator", "modulation", "participant", "profiler", "total")
_OUTPUT = "_output"  # of the norm of the gradient of what an agent made, after the agent's name


def check_names(
    agents: Collection[str], chain: Sequence[str], trains: Collection[str] | None, losses: Mapping[str, float]
) -> None:
    """Refuse an unknown name with the nearest known one, an agent that comes twice, a reserved name (ValueError)."""
    for name in agents:
        if name in _RESERVED:
            raise ValueError(f"agents.{name}: this name is taken by Mora itself; give the agent another one")
        if name.endswith(_OUTPUT) and name.removesuffix(_OUTPUT) in agents:
            made_by = name.removesuffix(_OUTPUT)
            raise ValueError(f"agents.{name}: metrics call what `{made_by}` makes so; give the agent another name")
    for key, names in (("chain", chain), ("trains", trains or ()), ("losses", losses)):
        for name in names:
            if name not in agents:
                raise ValueError(f"{key}: there is no agent `{name}`{_hint(name, agents)}")
    for name in chain:
        if chain.count(name) > 1:
            raise ValueError(f"chain: `{name}` comes twice; expected each agent once, because a chain has no cycle")
    if trains is not None:
        if not trains:
            raise ValueError("trains: expected at least one agent, got none")
        outside = [name for name in trains if chain and name not in chain]
        if outside:
            raise ValueError(f"trains: `{outside[0]}` is not in the chain ({', '.join(chain)})")


def _hint(name: str, agents: Collection[str]) -> str:
    nearest = nearest_name(name, agents)
    return f"; did you mean `{nearest}`?" if nearest else f" (there are {', '.join(agents)})"
