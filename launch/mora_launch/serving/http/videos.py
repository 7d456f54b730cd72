"""`/v1/videos`: create, list, poll, content, delete, shaped as OpenAI's; the six tasks by the field `task`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import random

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response

from mora_launch.serving.http.fields import Fields
from mora_launch.serving.http.front import Front, NotFound
from mora_launch.serving.http.video_job import MEDIA_TYPES, VideoJob
from mora_launch.serving.http.video_jobs import VideoJobs
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.inputs import read_inputs
from mora_launch.tasks.media import chosen_codec
from mora_launch.tasks.request import MAX_SEED, TaskRequest, check_fps, check_request, check_size

_FIELDS = (
    "prompt", "model", "seconds", "size", "input_reference", "task", "seed", "fps", "num_frames", "strength",
    "num_inference_steps", "guidance_scale", "enhance", "format", "codec", "review",
)  # fmt: skip
_MAX_LIST = 100
_MAX_DECODING = 2  # requests whose videos are decoded at a time; others wait


def video_routes(front: Front, jobs: VideoJobs) -> APIRouter:
    """All endpoints of videos."""
    router = APIRouter()
    decoding = asyncio.Semaphore(_MAX_DECODING)

    @router.post("/v1/videos")
    async def create(request: Request) -> Response:
        fields = await Fields.read(request, _FIELDS, ("user",))
        async with decoding:
            job = await run_in_threadpool(_create, front, jobs, fields)
        return JSONResponse(job.as_json())

    @router.get("/v1/videos")
    async def listing(after: str | None = None, limit: int = 20, order: str = "desc") -> Response:
        if not 1 <= limit <= _MAX_LIST:
            raise BadRequest("limit", f"expected 1 to {_MAX_LIST}, got {limit}")
        if order not in ("asc", "desc"):
            raise BadRequest("order", f"expected asc or desc, got {order[:20]}")
        found = jobs.all() if order == "asc" else jobs.all()[::-1]
        if after is not None:
            places = [place for place, job in enumerate(found) if job.id == after]
            if not places:
                raise NotFound("after", f"no video `{after[:60]}`")
            found = found[places[0] + 1 :]
        shown = [job.as_json() for job in found[:limit]]
        ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
        return JSONResponse({"object": "list", "data": shown, "has_more": len(found) > limit, **ends})

    @router.get("/v1/videos/{video_id}")
    async def retrieve(video_id: str) -> Response:
        return JSONResponse(jobs.get(video_id).as_json())

    @router.get("/v1/videos/{video_id}/content")
    async def content(video_id: str, variant: str = "video") -> Response:
        job = jobs.get(video_id)
        if variant not in ("video", "thumbnail"):
            raise BadRequest("variant", f"expected video or thumbnail, got {variant[:20]}")
        if job.status != "completed":
            raise NotFound("video_id", f"the video is {job.status}, not completed; poll it until it is")
        if not jobs.file(job, variant).is_file():
            raise NotFound("video_id", "somebody has taken the video's file out of the server's run directory")
        media_type = MEDIA_TYPES[job.kind] if variant == "video" else "image/png"
        return FileResponse(jobs.file(job, variant), media_type=media_type)

    @router.delete("/v1/videos/{video_id}")
    async def delete(video_id: str) -> Response:
        jobs.delete(video_id)
        return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})

    return router


def _create(front: Front, jobs: VideoJobs, fields: Fields) -> VideoJob:
    """Decode and check a request, and queue it; takes as long as a video takes to decode."""
    inputs = _inputs(fields)
    job = _job(front, fields, inputs)
    return jobs.create(job, is_reviewed=fields.flag("review", False), inputs=inputs)


def _job(front: Front, fields: Fields, inputs: list[bytes]) -> VideoJob:
    model = front.check_model(fields.text("model"), "image_to_video")
    kind = fields.text("format") or "mp4"
    if kind not in MEDIA_TYPES:
        raise BadRequest("format", f"expected one of {', '.join(MEDIA_TYPES)}, got {kind[:20]}")
    codec = fields.text("codec")
    chosen_codec(kind, codec)
    size = check_size(fields.text("size"), front.pool.describe("image_to_video"), front.config.serving)
    request = _request(front, fields, inputs)
    check_request(request, front.pool, front.config.serving)
    return VideoJob(request, model, size, kind, codec)


def _request(front: Front, fields: Fields, inputs: list[bytes]) -> TaskRequest:
    image, videos = read_inputs(inputs, "input_reference", front.config.serving, front.video_size())
    asked_fps = fields.number("fps")
    fps = front.config.clip.fps if asked_fps is None else check_fps(asked_fps)
    seconds = fields.number("seconds")
    frames = fields.integer("num_frames")
    if frames is not None:
        limit = int(front.config.serving.max_seconds * fps)
        if not 2 <= frames <= limit:
            raise BadRequest("num_frames", f"expected 2 to {limit}, got {frames}")
        seconds = frames / fps
    seed = fields.integer("seed")
    default_task = "image_to_video" if image is not None else "extend" if videos else "text_to_video"
    task = (fields.text("task") or default_task).replace("-", "_")
    strength = fields.number("strength")
    return TaskRequest(
        task, fields.text("prompt") or "", random.SystemRandom().randrange(MAX_SEED) if seed is None else seed, fps,
        image, videos, seconds, front.config.serving.edit_strength if strength is None else strength,
        fields.integer("num_inference_steps"), fields.number("guidance_scale"), fields.flag("enhance", True),
    )  # fmt: skip


def _inputs(fields: Fields) -> list[bytes]:
    """Pictures and videos that were sent; an address or a path is refused."""
    contents = list(fields.files.get("input_reference", []))
    text = None if contents else fields.text("input_reference")
    return contents if text is None else [_from_data_url(text)]


def _from_data_url(text: str) -> bytes:
    head, comma, data = text.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        text = "expected a file, or a data: URL in base64; addresses and paths are not opened"
        raise BadRequest("input_reference", text)
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise BadRequest("input_reference", "is not valid base64") from None
