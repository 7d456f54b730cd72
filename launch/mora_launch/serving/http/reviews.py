"""`/v1/videos/ID/review`: what a reviewer sees of a video job, and says. The page does the same by buttons."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import ValidationError

from mora_launch.review.decision import Candidate, Decision, ReviewState, first_fault
from mora_launch.review.session import ReviewSession
from mora_launch.serving.http.bodies import ReviewDecision
from mora_launch.serving.http.fields import Fields
from mora_launch.serving.http.front import NotFound
from mora_launch.serving.http.video_job import VideoJob
from mora_launch.serving.http.video_jobs import VideoJobs
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import encode, png


def review_routes(jobs: VideoJobs) -> APIRouter:
    """Look, look at the candidate, decide, resume."""
    router = APIRouter()

    @router.get("/v1/videos/{video_id}/review")
    async def look(video_id: str) -> Response:
        return JSONResponse(_as_json(jobs.get(video_id)))

    @router.get("/v1/videos/{video_id}/review/content")
    async def content(video_id: str) -> Response:
        job = jobs.get(video_id)
        session, state = _session(job)
        if state.candidate is None:
            raise NotFound("video_id", f"nothing waits for a reviewer; the review is {state.status}")
        return await run_in_threadpool(_content, session, state, state.candidate, job.request.fps)

    @router.post("/v1/videos/{video_id}/review", openapi_extra=ReviewDecision.documented())
    async def decide(video_id: str, request: Request) -> Response:
        fields = await Fields.read(request, ReviewDecision)
        job = jobs.get(video_id)
        session, _ = _session(job)
        session.decide(_decision(fields))
        return JSONResponse(_as_json(job))

    @router.post("/v1/videos/{video_id}/review/resume")
    async def resume(video_id: str) -> Response:
        return JSONResponse(jobs.resume(video_id).as_json())

    return router


def _session(job: VideoJob) -> tuple[ReviewSession, ReviewState]:
    state = job.review()
    if job.session is None or state is None:
        raise BadRequest("review", "this job asks nobody; create one with `review`: true")
    return job.session, state


def _as_json(job: VideoJob) -> dict[str, Any]:
    _, state = _session(job)
    candidate = state.candidate if state.status == "waiting" else None
    return {
        "id": job.id, "object": "video.review", "status": state.status, "version": state.version,
        "candidate": None if candidate is None else candidate.model_dump(exclude={"file"}),
        "accepted": [accepted.model_dump(exclude={"file"}) for accepted in state.accepted],
    }  # fmt: skip


def _content(session: ReviewSession, state: ReviewState, candidate: Candidate, fps: float) -> Response:
    """The candidate as a file, which is encoded once for all who look at it."""
    if candidate.kind == "text":
        return Response(candidate.prompt, media_type="text/plain")
    frames = session.frames(candidate)
    kind = "png" if frames.ndim == 3 else "mp4"
    path = session.folder / f"candidate-{state.version}.{kind}"
    if not path.exists():
        partial = path.with_name(f"{path.name}.{threading.get_ident()}.partial")
        partial.write_bytes(png(frames) if kind == "png" else encode(frames, fps, "mp4", {}))
        partial.rename(path)
    return FileResponse(path, media_type="image/png" if kind == "png" else "video/mp4")


def _decision(fields: Fields) -> Decision:
    given = {
        "version": fields.integer("version"), "action": fields.text("action"), "prompt": fields.text("prompt"),
        "strength": fields.number("strength"), "reviewer": fields.text("reviewer"),
    }  # fmt: skip
    try:
        return Decision.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise BadRequest(place or "prompt", first_fault(error)) from None
