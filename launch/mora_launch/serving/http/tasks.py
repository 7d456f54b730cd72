"""`/v1/tasks`: fields and examples of each task, and the limits of this server. The page builds its forms from it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from mora_launch.limits import MAX_SEED
from mora_launch.serving.http.front import Front
from mora_launch.tasks.request import NEEDS_IMAGE, NUM_VIDEOS, OPTIONAL_VIDEOS, TASKS
from mora_launch.web.page_files import PAGE

_PICTURE, _CIRCLE, _SQUARE = "red-circle.png", "red-circle-right.mp4", "blue-square-left.mp4"
EXAMPLE_FILES = (_PICTURE, _CIRCLE, _SQUARE)  # files of the page

# Title, description, and the fields that the task uses in addition to prompt, files and seed.
_ABOUT: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "text_to_video": ("Text to video", "Describe what the video shows.", ("seconds", "enhance")),
    "image_to_video": ("Image to video", "Animates a picture. Describe how it moves.", ("seconds",)),
    "extend": ("Extend", "Continues a video from its last frame.", ("seconds",)),
    "edit": ("Edit", "Changes the first frame as you describe, then animates it again.", ("seconds", "strength")),
    "connect": ("Connect", "Makes a transition from the first video to the second.", ()),
    "simulate": ("Simulate", "Makes a scene in the style of a digital world.", ("seconds", "strength", "enhance")),
}
_EXAMPLES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "text_to_video": (("a red circle moves right", ()), ("a blue square moves up", ())),
    "image_to_video": (("the red circle moves left", (_PICTURE,)), ("the red circle moves down", (_PICTURE,))),
    "extend": (("the red circle keeps moving right", (_CIRCLE,)), ("the blue square moves up", (_SQUARE,))),
    "edit": (("make the circle green", (_CIRCLE,)), ("make the square yellow", (_SQUARE,))),
    "connect": (
        ("the red circle becomes the blue square", (_CIRCLE, _SQUARE)),
        ("the blue square becomes the red circle", (_SQUARE, _CIRCLE)),
    ),
    "simulate": (("a yellow circle moves left", ()), ("a red circle moves right", (_CIRCLE,))),
}


def task_routes(front: Front) -> APIRouter:
    """Return a router with the list of tasks."""
    router = APIRouter()
    settings, clip = front.config.serving, front.config.clip
    limits = {
        "max_prompt_length": settings.max_prompt_length, "max_seconds": settings.max_seconds,
        "max_upload_nbytes": settings.max_upload_nbytes, "max_seed": MAX_SEED,
        "clip_seconds": clip.num_frames / clip.fps, "edit_strength": settings.edit_strength,
    }  # fmt: skip

    @router.get("/v1/tasks")
    async def tasks() -> Response:
        return JSONResponse({"object": "list", "data": [_task(name) for name in TASKS], "limits": limits})

    return router


def _task(name: str) -> dict[str, Any]:
    title, about, fields = _ABOUT[name]
    least = NUM_VIDEOS.get(name, 0)
    examples = [
        {"prompt": prompt, "files": [f"{PAGE}/{each}" for each in contents]} for prompt, contents in _EXAMPLES[name]
    ]
    return {
        "id": name, "object": "task", "name": title, "description": about, "num_images": int(name in NEEDS_IMAGE),
        "least_num_videos": least, "most_num_videos": least + OPTIONAL_VIDEOS.get(name, 0), "fields": list(fields),
        "examples": examples,
    }  # fmt: skip
