"""`/v1/videos/ID/review`: shows the candidate of a video job and takes the reviewer's decision. The page uses it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from mora_runtime.errors import SettingsError
from mora_runtime.files.fresh_file import write_fresh
from pydantic import ValidationError

from mora_launch.limits import MAX_REVIEWER_LENGTH
from mora_launch.review.decision import ReviewRefused, ReviewState, StageDecision, StageResult, first_fault
from mora_launch.review.session import SHOWN, ReviewSession
from mora_launch.serving.http.front import NotFound
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.http.presence import Presence
from mora_launch.serving.http.reading import get
from mora_launch.serving.http.requests.bodies import ReviewDecision
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import encode, png

_PNG = b"\x89PNG"


def review_routes(jobs: VideoJobs) -> APIRouter:
    """Return a router with the endpoints to read the state, read the candidate, decide, and resume."""
    router, presence = APIRouter(), Presence()

    @get(router, "/v1/videos/{video_id}/review")
    async def look(video_id: str, reviewer: str | None = None) -> Response:
        job = jobs.get(video_id)
        if reviewer is not None and not 0 < len(reviewer) <= MAX_REVIEWER_LENGTH:
            limit = f"expected a name of 1 to {MAX_REVIEWER_LENGTH} characters"
            raise BadRequest("reviewer", f"{limit}, got {len(reviewer)}")
        told = _as_json(job)
        return JSONResponse({**told, "reviewers": presence.look(job.id, reviewer)})

    @get(router, "/v1/videos/{video_id}/review/content")
    async def content(video_id: str) -> Response:
        job = jobs.get(video_id)
        session, state = _session(job)
        if state.candidate is None:
            raise NotFound("video_id", f"no candidate waits for a reviewer; the review is {state.status}")
        return await run_in_threadpool(_content, session, state, state.candidate, job.request.fps)

    @router.post("/v1/videos/{video_id}/review", openapi_extra=ReviewDecision.documented())
    async def decide(video_id: str, request: Request) -> Response:
        fields = await RequestFields.read(request, ReviewDecision)
        job = jobs.get(video_id)
        session, _ = _session(job)
        await run_in_threadpool(session.decide, _decision(fields))
        return JSONResponse(_as_json(job))

    @router.post("/v1/videos/{video_id}/review/resume")
    async def resume(video_id: str) -> Response:
        job = await run_in_threadpool(jobs.resume, video_id)
        return JSONResponse(job.as_json())

    return router


def _session(job: VideoJob) -> tuple[ReviewSession, ReviewState]:
    state = job.review()
    if job.session is None or state is None:
        raise BadRequest("review", "this job has no review; create one with `review`: true")
    return job.session, state


def _as_json(job: VideoJob) -> dict[str, Any]:
    _, state = _session(job)
    candidate = state.candidate if state.status == "waiting" else None
    return {
        "id": job.id, "object": "video.review", "status": state.status, "version": state.version,
        "candidate": None if candidate is None else candidate.model_dump(exclude={"file"}),
        "accepted": [accepted.model_dump(exclude={"file"}) for accepted in state.accepted],
    }  # fmt: skip


def _content(session: ReviewSession, state: ReviewState, candidate: StageResult, fps: float) -> Response:
    """Return the candidate as a file, which is encoded once for all reviewers."""
    if candidate.kind == "text":
        return Response(candidate.prompt, media_type="text/plain")
    try:
        shown = _shown(session, state.version, candidate, fps)
    except (OSError, SettingsError):
        raise ReviewRefused("this candidate has just been decided; reload the review") from None
    return Response(shown, media_type="image/png" if shown.startswith(_PNG) else "video/mp4")


def _shown(session: ReviewSession, version: int, candidate: StageResult, fps: float) -> bytes:
    path = session.folder / f"{SHOWN}{version}"
    if not path.exists():
        frames = session.frames(candidate)
        write_fresh(path, png(frames) if frames.ndim == 3 else encode(frames, fps, "mp4", {}))
    return path.read_bytes()


def _decision(fields: RequestFields) -> StageDecision:
    given = {
        "version": fields.integer("version"), "action": fields.text("action"), "prompt": fields.text("prompt"),
        "strength": fields.number("strength"), "reviewer": fields.text("reviewer"),
    }  # fmt: skip
    try:
        return StageDecision.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise BadRequest(place or "prompt", first_fault(error)) from None
