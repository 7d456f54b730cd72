"""The answers of `/healthz` and `/readyz`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from mora_launch.web.access import TENANT
from mora_launch.web.asgi import Scope

WAIT_S = 5  # until asking again about servers that are starting


def health() -> JSONResponse:
    """Return the answer of `/healthz`."""
    return JSONResponse({"status": "ok", "time": int(time.time())})


def readiness(scope: Scope, status: str, servers: Mapping[str, bool], retry_after_s: int = WAIT_S) -> JSONResponse:
    """Return the answer of `/readyz`. A client that needs a token and has none, such as a probe, gets the status alone.

    Args:
        status: `loading`, `ready`, `waiting for servers` or `stopping`.
        servers: whether each server is ready.
        retry_after_s: when to ask again if the server is not ready.
    """
    content: dict[str, Any] = {"ready": status == "ready", "status": status}
    if scope.get(TENANT) is not None:
        content["servers"] = dict(servers)
    if content["ready"]:
        return JSONResponse(content)
    return JSONResponse(content, 503, {"retry-after": str(retry_after_s)})
