"""`/v1/videos/ID/stages`: what a job has made so far, stage by stage. The page shows it as a row of pictures."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from mora_launch.serving.http.front import NotFound
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.http.reading import get


def stage_routes(jobs: VideoJobs) -> APIRouter:
    """Return a router with the list of a job's stages and their pictures."""
    router = APIRouter()

    @get(router, "/v1/videos/{video_id}/stages")
    async def stages(video_id: str) -> Response:
        job = jobs.get(video_id)
        begun = list(job.stages)
        data = [stage.as_json() for stage in begun]
        expected = len(begun) if job.has_ended else max(job.num_stages, len(begun))
        return JSONResponse({"object": "list", "data": data, "expected": expected})

    @get(router, "/v1/videos/{video_id}/stages/{number}/content")
    async def picture(video_id: str, number: str) -> Response:
        begun = list(jobs.get(video_id).stages)
        found = begun[int(number)] if number.isdecimal() and len(number) < 5 and int(number) < len(begun) else None
        if found is None or found.picture is None:
            raise NotFound("stage", f"stage {number[:20]} has no picture; `/v1/videos/ID/stages` lists those that have")
        return Response(found.picture, media_type="image/jpeg")

    return router
