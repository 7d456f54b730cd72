"""Paths of OpenAI's interface that have another place here: each is answered with that place."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from mora_launch.serving.http.front import NotFound

_TASKS = {
    "/v1/videos/edits": ("edit", "the video as input_reference"),
    "/v1/videos/extensions": ("extend", "the video as input_reference"),
    "/v1/videos/{video_id}/remix": ("edit", "its content as input_reference"),
}


def other_paths() -> APIRouter:
    """Return a router that must come before the one of videos, whose paths would match these."""
    router = APIRouter()
    for path, (task, given) in _TASKS.items():
        router.add_api_route(path, _told(task, given), methods=["POST"], include_in_schema=False)
    return router


def _told(task: str, given: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    text = f"is not a path of this server; use POST /v1/videos with task={task} and {given}"

    async def tell() -> Response:
        raise NotFound("path", text)

    return tell
