"""`/v1/videos`: create, list, poll, content, delete, compatible with OpenAI's. The field `task` selects the task."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import Video

from mora_launch.limits import MAX_NUM_LISTED_VIDEOS, MAX_SEED
from mora_launch.serving.http.front import Front, NotFound
from mora_launch.serving.http.jobs.video_job import MEDIA_TYPES, VideoJob
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.http.requests.bodies import VideoCreation
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.http.requests.uploads import decoded, sent_files
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import check_encodable, chosen_codec
from mora_launch.tasks.request import (
    TaskRequest,
    check_fps,
    check_request,
    check_sampling,
    check_size,
    check_texts,
)


def video_routes(front: Front, jobs: VideoJobs) -> APIRouter:
    """Return a router with all endpoints for videos."""
    router = APIRouter()

    @router.post("/v1/videos", openapi_extra=VideoCreation.documented())
    async def create(request: Request) -> Response:
        fields = await RequestFields.read(request, VideoCreation)
        contents = await sent_files(fields, "input_reference")
        job, is_reviewed = _job(front, fields), fields.flag("review", False)  # checks the fields before decoding
        image, videos = await decoded(request, front, contents, "input_reference", front.video_size())
        job.request = _with_files(job.request, image, videos)
        job.notes, job.loses_sound = tuple(job.request.notes), job.request.loses_sound
        check_request(job.request, front.pool, front.config.serving)
        await run_in_threadpool(jobs.create, job, is_reviewed=is_reviewed, inputs=contents)
        return JSONResponse(job.as_json())

    @router.get("/v1/videos")
    async def listing(after: str | None = None, limit: int = 20, order: str = "desc") -> Response:
        if not 1 <= limit <= MAX_NUM_LISTED_VIDEOS:
            raise BadRequest("limit", f"expected 1 to {MAX_NUM_LISTED_VIDEOS}, got {limit}")
        if order not in ("asc", "desc"):
            raise BadRequest("order", f"expected asc or desc, got {order[:20]}")
        found = jobs.all() if order == "asc" else jobs.all()[::-1]
        if after is not None:
            places = [place for place, job in enumerate(found) if job.id == after]
            if not places:
                raise NotFound("after", f"no video `{after[:60]}`")
            found = found[places[0] + 1 :]
        # in a thread, because reviews are read from disk
        shown = await run_in_threadpool(lambda: [job.as_json() for job in found[:limit]])
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
        if variant == "video" and job.status == "in_progress" and job.live is not None and job.live.has_content:
            with suppress(FileNotFoundError):  # it has just ended
                return StreamingResponse(job.live.chunks(), 200, {"cache-control": "no-store"}, "video/mp4")
        if job.status != "completed":
            raise NotFound("video_id", f"the video is {job.status}, not completed; poll it until it is")
        if not jobs.file(job, variant).is_file():
            raise NotFound("video_id", "the video's file is missing from the server's run directory")
        media_type = MEDIA_TYPES[job.kind] if variant == "video" else "image/png"
        return FileResponse(jobs.file(job, variant), media_type=media_type)

    @router.delete("/v1/videos/{video_id}")
    async def delete(video_id: str) -> Response:
        jobs.delete(video_id)
        return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})

    return router


def _job(front: Front, fields: RequestFields) -> VideoJob:
    """Return the requested job without its files. Raises: BadRequest: a field is invalid."""
    model = front.check_model(fields.text("model"), "image_to_video")
    kind = fields.text("format") or "mp4"
    if kind not in MEDIA_TYPES:
        raise BadRequest("format", f"expected one of {', '.join(MEDIA_TYPES)}, got {kind[:20]}")
    codec = fields.text("codec")
    chosen_codec(kind, codec)
    about, settings = front.pool.describe("image_to_video"), front.config.serving
    size = check_size(fields.text("size"), about, settings)
    request = _request(front, fields)
    check_encodable(kind, size, request.fps)
    check_texts(request, settings)
    check_sampling(request.num_inference_steps, request.guidance_scale, about)
    return VideoJob(request, model, size, kind, codec)


def _request(front: Front, fields: RequestFields) -> TaskRequest:
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
    strength = fields.number("strength")
    return TaskRequest(
        (fields.text("task") or "").replace("-", "_"), fields.text("prompt") or "",
        random.SystemRandom().randrange(MAX_SEED) if seed is None else seed, fps,
        None, (), seconds, front.config.serving.edit_strength if strength is None else strength,
        fields.integer("num_inference_steps"), fields.number("guidance_scale"), fields.flag("enhance", True),
    )  # fmt: skip


def _with_files(request: TaskRequest, image: Clip | None, videos: tuple[Video, ...]) -> TaskRequest:
    """Add the decoded files to a request, and derive the task from them if the request names none."""
    default_task = "image_to_video" if image is not None else "extend" if videos else "text_to_video"
    return replace(request, task=request.task or default_task, image=image, videos=videos)
