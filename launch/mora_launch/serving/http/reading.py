"""Endpoints that answer GET, and HEAD with the headers of the same answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response

EndpointT = TypeVar("EndpointT", bound=Callable[..., Awaitable[Response]])


def get(router: APIRouter | FastAPI, path: str) -> Callable[[EndpointT], EndpointT]:
    """Register a function for GET and HEAD. The HTTP server leaves the body of an answer to HEAD out."""

    def register(endpoint: EndpointT) -> EndpointT:
        router.add_api_route(path, endpoint, methods=["GET"])
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        return endpoint

    return register
