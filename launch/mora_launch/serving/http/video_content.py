"""`/v1/videos/ID/content`: the video, its first frame, or a sheet of its frames."""

from __future__ import annotations

import math
from contextlib import suppress

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from mora_data.reading.timeline import Video

from mora_launch.decoding.job import decode_job
from mora_launch.serving.http.front import Front, NotFound, NotReady
from mora_launch.serving.http.jobs.video_job import MEDIA_TYPES, VideoJob
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.http.reading import get
from mora_launch.serving.http.requests.uploads import decoded_jobs
from mora_launch.serving.http.results.frame_sheet import cell_size, frame_sheet
from mora_launch.serving.http.results.picture_format import PictureFormat
from mora_launch.serving.http.results.stored_file import StoredFile
from mora_launch.tasks.errors import BadRequest

_VARIANTS = ("video", "thumbnail", "spritesheet")
_SHEET = PictureFormat("jpeg", 90)
_FIRST_FRAME_S = 2  # until asking again for frames of a video that has none
_STREAM_HEADERS = {"cache-control": "no-store", "accept-ranges": "none"}  # its length is not known


def content_routes(front: Front, jobs: VideoJobs) -> APIRouter:
    """Return a router with the endpoint."""
    router = APIRouter()

    @get(router, "/v1/videos/{video_id}/content")
    async def content(request: Request, video_id: str, variant: str = "video") -> Response:
        job = jobs.get(video_id)
        if variant not in _VARIANTS:
            raise BadRequest("variant", f"expected one of {', '.join(_VARIANTS)}, got {variant[:20]}")
        if variant == "video":
            if (streamed := _streamed(request, job)) is not None:
                return streamed
            _check_begun(job)
        if variant == "spritesheet":
            check_completed(job, "video_id")
            return await _sheet(request, front, jobs, job)
        return completed_file(jobs, job, variant)

    return router


def completed_file(jobs: VideoJobs, job: VideoJob, variant: str = "video") -> Response:
    """Return a job's `video` or `thumbnail`, and its id as a header. Raises: NotReady, NotFound: there is none."""
    check_completed(job, "video_id")
    path = jobs.file(job, variant)
    if not path.is_file():
        raise _file_missing("video_id")
    media_type = MEDIA_TYPES[job.kind] if variant == "video" else "image/png"
    return StoredFile(path, media_type=media_type, headers={"x-video-id": job.id})


def check_completed(job: VideoJob, field: str) -> None:
    """Check that a job has a result. Raises: NotReady: it is still made. NotFound: it has failed."""
    if job.status == "failed":
        raise NotFound(field, f"the video has failed: {(job.error or {}).get('message', 'its error is not known')}")
    if job.status != "completed":
        raise NotReady(field, f"the video is {job.status}, not completed; poll it until it is")


def _file_missing(field: str) -> NotFound:
    """Return the error for a result that is no longer on disk."""
    return NotFound(field, "the video's file is missing from the server's run directory")


async def stored_content(jobs: VideoJobs, job: VideoJob, field: str) -> bytes:
    """Return the file of a completed job. Raises: NotFound: it has just been removed."""
    try:
        return await run_in_threadpool(jobs.file(job).read_bytes)
    except FileNotFoundError:
        raise _file_missing(field) from None


def _streamed(request: Request, job: VideoJob) -> Response | None:
    """Stream the frames of a running job until its end; None if it has no frame yet."""
    live = job.live
    if job.status != "in_progress" or live is None or not live.has_content:
        return None
    if request.method == "HEAD":
        # an empty `Response` would name a length of 0
        return StreamingResponse((), 200, _STREAM_HEADERS, "video/mp4")
    with suppress(FileNotFoundError):  # it has just ended
        return StreamingResponse(live.chunks(), 200, _STREAM_HEADERS, "video/mp4")
    return None


def _check_begun(job: VideoJob) -> None:
    """Check that a video that can be watched while it is made has frames. Raises: NotReady: it has none yet."""
    has_frames = job.live is not None and job.live.has_content
    if job.session is None and not job.has_ended and not has_frames:
        text = f"no frame is finished yet; the video is {job.status}, and can be watched from its first frame on"
        raise NotReady("video_id", text, _FIRST_FRAME_S)


async def _sheet(request: Request, front: Front, jobs: VideoJobs, job: VideoJob) -> Response:
    """Return the sheet of a completed video, from the file that clients get."""
    content = await stored_content(jobs, job, "video_id")
    most, size = math.ceil(job.seconds * job.request.fps) + 1, cell_size(*job.size)
    (video,) = await decoded_jobs(request, front, lambda: [decode_job(content, "variant", size=size, max_frames=most)])
    assert isinstance(video, Video), "a job's file is never a picture"
    sheet = await run_in_threadpool(lambda: _SHEET.encode(frame_sheet(video.frames)))
    return Response(sheet, media_type=_SHEET.media_type)
