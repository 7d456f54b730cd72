"""`/v1/tasks`: fields and examples of each task, and the limits of this server. The page builds its forms from it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from mora_launch.limits import MAX_SEED
from mora_launch.serving.http.front import Front
from mora_launch.serving.http.reading import get
from mora_launch.tasks.catalog import TASKS, Task
from mora_launch.web.page_files import PAGE


def task_routes(front: Front) -> APIRouter:
    """Return a router with the list of tasks."""
    router = APIRouter()
    settings, clip = front.config.serving, front.config.clip
    limits = {
        "max_prompt_length": settings.max_prompt_length, "max_seconds": settings.max_seconds,
        "max_upload_nbytes": settings.max_upload_nbytes, "max_seed": MAX_SEED,
        "clip_seconds": clip.num_frames / clip.fps, "edit_strength": settings.edit_strength,
    }  # fmt: skip

    @get(router, "/v1/tasks")
    async def tasks() -> Response:
        listed = [_told(name, task) for name, task in TASKS.items()]
        return JSONResponse({"object": "list", "data": listed, "limits": limits})

    return router


def _told(name: str, task: Task) -> dict[str, Any]:
    examples = [
        {"prompt": example.prompt, "files": [f"{PAGE}/{each}" for each in example.files]} for example in task.examples
    ]
    return {
        "id": name, "object": "task", "name": task.title, "description": task.description,
        "num_images": int(task.needs_image), "least_num_videos": task.num_videos,
        "most_num_videos": task.num_videos + task.num_optional_videos, "fields": list(task.fields),
        "examples": examples,
    }  # fmt: skip
