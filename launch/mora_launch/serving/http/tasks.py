"""`/v1/tasks`: fields and examples of each task, and the limits of this server. The page builds its forms from it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from mora_launch.limits import MAX_PRIORITY, MAX_SEED
from mora_launch.serving.http.front import Front
from mora_launch.serving.http.reading import get
from mora_launch.serving.server_pool import ServerPool
from mora_launch.tasks.catalog import PICTURE, TASKS, Task, called, takes_strength
from mora_launch.tasks.request import drawn_sizes
from mora_launch.web.page_files import PAGE


def task_routes(front: Front) -> APIRouter:
    """Return a router with the list of tasks."""
    router = APIRouter()
    settings, clip = front.config.serving, front.config.clip
    limits = {
        "max_prompt_length": settings.max_prompt_length, "max_seconds": settings.max_seconds,
        "max_upload_nbytes": settings.max_upload_nbytes, "max_seed": MAX_SEED,
        "clip_seconds": clip.num_frames / clip.fps, "max_priority": MAX_PRIORITY,
    }  # fmt: skip

    @get(router, "/v1/tasks")
    async def tasks() -> Response:
        has_agent = settings.prompts.is_on
        listed = [_told(name, task, front.pool, has_prompt_agent=has_agent) for name, task in TASKS.items()]
        strength = settings.edit_strength if takes_strength(front.pool.capabilities()) else None
        told = {**limits, "edit_strength": strength}
        return JSONResponse({"object": "list", "data": listed, "picture": _picture(front), "limits": told})

    return router


def _picture(front: Front) -> dict[str, Any] | None:
    """Return what a request for pictures takes; None if no server makes them."""
    if "text_to_image" not in front.pool.capabilities():
        return None
    sizes = drawn_sizes(front.pool.describe("text_to_image"), front.config.serving)
    told = _told("picture", PICTURE, front.pool, has_prompt_agent=front.config.serving.prompts.is_on)
    return {**told, "object": "picture", "sizes": sizes}


def _told(name: str, task: Task, pool: ServerPool, *, has_prompt_agent: bool) -> dict[str, Any]:
    adapters = _adapters(task, pool)
    known = pool.capabilities()
    left_out = {"strength": not takes_strength(known), "enhance": not has_prompt_agent}
    own = [field for field in task.fields if not left_out.get(field)]
    fields = [*own, "priority", *_negative(task, pool), *(("lora",) if adapters else ())]
    examples = [
        {"prompt": example.prompt, "files": [f"{PAGE}/{each}" for each in example.files]} for example in task.examples
    ]
    return {
        "id": name, "object": "task", "name": task.title, "description": task.description,
        "num_images": int(task.needs_image), "least_num_videos": task.num_videos,
        "most_num_videos": task.num_videos + task.num_optional_videos, "fields": fields, "adapters": adapters,
        "examples": examples,
    }  # fmt: skip


def _agents(task: Task, pool: ServerPool) -> list[dict[str, Any]]:
    """Return what is known about the agents that the task may call, as far as servers have them."""
    known = pool.capabilities()
    return [pool.describe(name) for name in called(task, known) if name in known]


def _negative(task: Task, pool: ServerPool) -> tuple[str, ...]:
    """Return the field for what should not be shown, if every agent of the task takes it."""
    agents = _agents(task, pool)
    return ("negative_prompt",) if agents and all(about.get("takes_negative_prompt") for about in agents) else ()


def _adapters(task: Task, pool: ServerPool) -> list[str]:
    """Return the names of adapters that one of the task's agents has."""
    agents = {about["agent"] for about in _agents(task, pool)}
    return [name for name in pool.adapters.names if agents.intersection(pool.adapters.agents_of(name))]
