"""`/v1/videos`: create, list, poll, delete, compatible with OpenAI's. `video_content` has the results.

Every endpoint that creates a job runs one of the tasks: `/v1/videos` and `/v1/videos/sync` the one that the field
`task` names, the others always the same one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from mora_launch.limits import MAX_NUM_LISTED_VIDEOS
from mora_launch.serving.http.front import Front, NotFound, error_answer, status_of_code
from mora_launch.serving.http.jobs.video_job import VideoJob, place_of
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.http.reading import get
from mora_launch.serving.http.requests.bodies import (
    RequestBody,
    VideoCreation,
    VideoEdit,
    VideoExtension,
    VideoNow,
    VideoRemix,
)
from mora_launch.serving.http.requests.fields import RequestFields
from mora_launch.serving.http.requests.references import VideoId
from mora_launch.serving.http.requests.request_cost import task_cost
from mora_launch.serving.http.requests.request_terms import terms_of
from mora_launch.serving.http.requests.uploads import data_url_content, decoded
from mora_launch.serving.http.requests.video_request import requested_job, with_files
from mora_launch.serving.http.video_content import check_completed, completed_file, stored_content
from mora_launch.serving.http.waiting import while_connected
from mora_launch.tasks.catalog import TASKS, called
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.length import planned_frames
from mora_launch.tasks.request import TaskRequest, check_request


def video_routes(front: Front, jobs: VideoJobs) -> APIRouter:
    """Return a router with all endpoints for videos, except their contents and reviews."""
    router = APIRouter()
    creator = _Creator(front, jobs)

    @router.post("/v1/videos", openapi_extra=VideoCreation.documented())
    async def create(request: Request) -> Response:
        return await creator.create(request, VideoCreation, "input_reference")

    @router.post("/v1/videos/sync", openapi_extra=VideoNow.documented())
    async def create_and_wait(request: Request) -> Response:
        return await creator.create_and_wait(request)

    @router.post("/v1/videos/edits", openapi_extra=VideoEdit.documented())
    async def edit(request: Request) -> Response:
        return await creator.create(request, VideoEdit, "video", task="edit")

    @router.post("/v1/videos/extensions", openapi_extra=VideoExtension.documented())
    async def extend(request: Request) -> Response:
        return await creator.create(request, VideoExtension, "video", task="extend")

    @router.post("/v1/videos/{video_id}/remix", openapi_extra=VideoRemix.documented())
    async def remix(request: Request, video_id: str) -> Response:
        return await creator.create(request, VideoRemix, "video_id", task="edit", source_id=video_id)

    @get(router, "/v1/videos")
    async def listing(after: str | None = None, limit: int = 20, order: str = "desc") -> Response:
        if not 1 <= limit <= MAX_NUM_LISTED_VIDEOS:
            raise BadRequest("limit", f"expected 1 to {MAX_NUM_LISTED_VIDEOS}, got {limit}")
        if order not in ("asc", "desc"):
            raise BadRequest("order", f"expected asc or desc, got {order[:20]}")
        found = _listed(jobs.all(), after, is_ascending=order == "asc")
        # in a thread, because reviews are read from disk
        shown = await run_in_threadpool(lambda: [job.as_json() for job in found[:limit]])
        ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
        return JSONResponse({"object": "list", "data": shown, "has_more": len(found) > limit, **ends})

    @get(router, "/v1/videos/{video_id}")
    async def retrieve(video_id: str) -> Response:
        return JSONResponse(jobs.get(video_id).as_json())

    @router.delete("/v1/videos/{video_id}")
    async def delete(video_id: str) -> Response:
        await run_in_threadpool(jobs.delete, video_id)
        return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})

    return router


def _listed(jobs: list[VideoJob], after: str | None, *, is_ascending: bool) -> list[VideoJob]:
    """Return the jobs after one of them in the order of creation; it may have been deleted. Raises: NotFound."""
    ordered = sorted(jobs, key=lambda job: job.place, reverse=not is_ascending)
    if after is None:
        return ordered
    place = next((job.place for job in jobs if job.id == after), None) or place_of(after)
    if place is None:
        raise NotFound("after", f"no video `{after[:60]}`")
    return [job for job in ordered if (job.place > place if is_ascending else job.place < place)]


@dataclass(frozen=True)
class _Creator:
    """Creates jobs from requests."""

    front: Front
    jobs: VideoJobs

    async def create(
        self, request: Request, body: type[RequestBody], files: str, *, task: str | None = None,
        source_id: str | None = None,
    ) -> Response:  # fmt: skip
        """Create a job and answer before it has begun.

        Args:
            files: the field that contains files.
            task: that of the endpoint; None = the field `task`.
            source_id: id of the finished video that the job begins with; None = the files.
        """
        job = await self._created(request, await RequestFields.read(request, body), files, task, source_id)
        return JSONResponse(await run_in_threadpool(job.as_json))

    async def create_and_wait(self, request: Request) -> Response:
        """Create a job and answer with its video. A client that disconnects cancels the job."""
        fields = await RequestFields.read(request, VideoNow)
        job = await self._created(request, fields, "input_reference", None, None)
        try:
            await while_connected(request, [job.ended])
        except BaseException:
            with suppress(NotFound):
                self.jobs.delete(job.id)
            raise
        if job.error is not None:
            code = job.error["code"]
            return error_answer(job.error["message"], status_of_code(code), code=code)
        return completed_file(self.jobs, job)

    async def _created(
        self, request: Request, fields: RequestFields, files: str, task: str | None, source_id: str | None
    ) -> VideoJob:
        given = self._given(fields, files, source_id)
        source = next((each for each in given if isinstance(each, VideoJob)), None)
        job = requested_job(self.front, fields, task=task, source=source)  # checks the fields before decoding
        named = TASKS.get(job.request.task)  # None if the task depends on the files
        job.terms = terms_of(
            request, fields, self.front, called(named, self.front.pool.capabilities()) if named else ()
        )
        is_reviewed = fields.flag("review", False)
        admission = self.front.reviews if is_reviewed else self.front.admission
        admission.check_room(job.terms.tenant)  # before decoding, so that a request that would be refused costs none
        contents = fields.files.get(files) or [await self._content(each, files) for each in given]
        image, videos = await decoded(request, self.front, contents, files, self.front.video_size())
        job.request = with_files(job.request, image, videos)
        job.notes, job.loses_sound = tuple(job.request.notes), job.request.loses_sound
        self._check_request(job.request, files)
        job.cost = task_cost(job.request, self.front.pool)
        self.front.admission.check_fits(job.cost, "seconds")
        job.seconds = planned_frames(job.request, self.front.pool) / job.request.fps
        await run_in_threadpool(self.jobs.create, job, is_reviewed=is_reviewed, inputs=contents)
        return job

    def _check_request(self, request: TaskRequest, files: str) -> None:
        """Check a request with its files. Raises: BadRequest: an error about files names the endpoint's own field."""
        try:
            check_request(request, self.front.pool, self.front.config.serving)
        except BadRequest as error:
            if error.field not in ("image", "video"):
                raise
            raise BadRequest(files, str(error).partition(": ")[2]) from None

    def _given(self, fields: RequestFields, files: str, source_id: str | None) -> list[VideoJob | str]:
        """Return the finished videos and data: URLs that are named in place of files. Raises: NotFound, NotReady."""
        if source_id is not None:
            return [self._finished(source_id, files)]
        return [self._finished(text, files) if _is_id(text, files) else text for text in fields.texts(files)]

    async def _content(self, given: VideoJob | str, field: str) -> bytes:
        if isinstance(given, VideoJob):
            return await stored_content(self.jobs, given, field)
        return await data_url_content(field, given, "a file, a data: URL in base64 or the id of a finished video")

    def _finished(self, source_id: str, files: str) -> VideoJob:
        try:
            job = self.jobs.get(source_id)
        except NotFound as error:
            raise NotFound(files, str(error).partition(": ")[2]) from None
        check_completed(job, files)
        return job


def _is_id(text: str, field: str) -> bool:
    """Whether a text is the id of a video. The field `video` takes nothing else but data: URLs."""
    return isinstance(text, VideoId) or text.startswith("video_") or (field == "video" and not text.startswith("data:"))
