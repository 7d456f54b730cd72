"""The command `cost`: tells the launcher what an agent costs, without its weights and without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mora_runtime.errors import MoraError
from mora_runtime.schema import read_settings
from mora_runtime.wire.messages import PROTOCOL_VERSION

from mora_environment.cost import AgentCost, CostRequest
from mora_environment.kind import Kind, imported, kind_named


def answer_cost(kinds: Mapping[str, Kind], package: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the cost of the agent of this `kind` with these `options` for the work in `request`.

    Returns:
        `{"error"}`, or `{"cost"}`, which is None if the kind does not tell it. Always with `protocol`, the version of
        the wire protocol that this environment's runtime speaks.
    """
    source = str(request["source"])
    try:
        kind = kind_named(kinds, str(request["kind"]), source=source, package=package)
        cost = None if kind.cost is None else _cost(kind, package, request, source)
        answer: dict[str, Any] = {"cost": None if cost is None else cost.model_dump()}
    except MoraError as error:
        answer = {"error": str(error)}
    return {"protocol": PROTOCOL_VERSION, **answer}


def _cost(kind: Kind, package: str, request: dict[str, Any], source: str) -> AgentCost:
    assert kind.cost is not None
    options = read_settings(kind.options, request["options"], source=source)
    work = read_settings(CostRequest, request["work"], source=f"{source}: the work")
    tell = imported(kind.cost, owner=f"{package}: the cost of kind `{request['kind']}`")
    cost: AgentCost = tell(options, work)
    return cost
