"""The query of an address: fields that the endpoint does not know are refused by name."""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute
from mora_runtime.schema import nearest_name

from mora_launch.tasks.errors import BadRequest

_CHECKED = "/v1"  # the page has fields of its own, which its scripts read


async def check_query(request: Request) -> None:
    """Check the names of all fields; a dependency of the application. Raises: BadRequest: one is unknown."""
    route = request.scope.get("route")
    if not request.url.query or not request.url.path.startswith(_CHECKED) or not isinstance(route, APIRoute):
        return
    known = [field.alias for field in route.dependant.query_params]
    for name in request.query_params:
        if name not in known:
            nearest = nearest_name(name[:60], known)
            hint = f"; did you mean `{nearest}`?" if nearest else ""
            told = f"takes {', '.join(known)} in its query" if known else "takes no query"
            hint = hint or ("; give fields in the body" if request.method == "POST" else "")
            raise BadRequest(name[:60], f"unknown field of the query; the endpoint {told}{hint}")
