"""Video jobs: each runs a task in its own thread, and its result is a file of the run until it expires.

At most `serving.max_video_jobs` run at a time, not counting those that wait for a reviewer. A server that is restarted
on the same run has all ended jobs; unfinished reviews are stopped and can be resumed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

from mora_runtime.errors import Cancelled, MoraError, StorageError

from mora_launch.limits import MAX_NUM_KEPT_VIDEOS
from mora_launch.review.decision import Stopped
from mora_launch.serving.counters import FinishedReason
from mora_launch.serving.http.admission import TooBusy
from mora_launch.serving.http.front import Front, NotFound
from mora_launch.serving.http.jobs.eviction import surplus
from mora_launch.serving.http.jobs.job_folder import JobFolder
from mora_launch.serving.http.jobs.job_work import JobWork
from mora_launch.serving.http.jobs.review_room import ReviewRoom
from mora_launch.serving.http.jobs.video_job import Status, VideoJob
from mora_launch.serving.http.request_record import note_job
from mora_launch.tasks.errors import BadRequest
from mora_launch.telemetry import spans

log = logging.getLogger(__name__)
_NUM_EXPIRED_KNOWN = 10_000  # expired ids that are remembered, to say so instead of "unknown"


class VideoJobs:
    """All jobs of this run until they expire."""

    def __init__(self, front: Front, folder: Path) -> None:
        self._front = front
        self._folder = JobFolder(folder)
        self._jobs: dict[str, VideoJob] = {}
        self._expired: deque[str] = deque(maxlen=_NUM_EXPIRED_KNOWN)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        settings = front.config.serving
        self._threads = ThreadPoolExecutor(settings.max_waiting + settings.max_reviews, thread_name_prefix="task")
        self._removals = ThreadPoolExecutor(1, thread_name_prefix="removal")
        self._work = JobWork(front, self._folder, self._is_given_up)
        self._review_room = ReviewRoom(self._folder, settings, front.tenants)
        for job in self._folder.read_all():
            self._take_up(job)

    def create(self, job: VideoJob, *, is_reviewed: bool = False, inputs: Sequence[bytes] = ()) -> VideoJob:
        """Queue a job.

        Args:
            inputs: content of the files from which `job.request` was made.

        Raises:
            TooBusy: there are too many jobs.
            StorageError: its record could not be written.
        """
        self._expire()
        note_job(job.id)
        admission = self._front.reviews if is_reviewed else self._front.admission
        admission.enter(job.terms.tenant, job.cost)
        try:
            self._check_memory(job)
            if is_reviewed:
                self._make_room(job.terms.tenant, sum(map(len, inputs)))
                job.session = self._folder.open_session(job, inputs)
            self._folder.write(job)
        except TooBusy:
            admission.leave(job.terms.tenant, job.cost, is_done=False)
            raise
        except OSError as error:
            self._folder.remove(job)
            admission.leave(job.terms.tenant, job.cost, is_done=False)
            raise StorageError(f"the job cannot be written to the server's disk ({error.strerror})") from None
        with self._lock:
            self._jobs[job.id] = job
        self._start(job)
        return job

    def _start(self, job: VideoJob) -> None:
        self._threads.submit(copy_context().run, self._run, job)  # its spans are children of the request's span

    def _check_memory(self, job: VideoJob) -> None:
        with self._lock:
            others = [(each.terms.tenant, each.request.nbytes) for each in self._jobs.values()]
        if job.request.nbytes:
            self._front.decoding.check_room(job.request.nbytes, job.terms.tenant, others)

    def _make_room(self, tenant: str, nbytes: int = 0) -> None:
        """Let stopped reviews expire if there are too many for `nbytes` more of a tenant. Raises: TooBusy."""
        sizes = self._review_room.sizes(list(self._jobs.values()))  # not under the lock, for which requests wait
        with self._lock:
            old = self._review_room.too_old(list(self._jobs.values()), sizes, nbytes, tenant)
            self._forget(old)
        for each in old:
            self._remove(each)

    def _forget(self, jobs: Sequence[VideoJob]) -> None:
        for job in jobs:
            del self._jobs[job.id]
            self._expired.append(job.id)

    def resume(self, identifier: str) -> VideoJob:
        """Continue a reviewed job that was stopped, had no decision in time, or failed.

        Raises:
            BadRequest: the job was not stopped.
            TooBusy, StorageError, NotFound: as for `create` and `get`.
        """
        job = self.get(identifier)
        review = job.review()
        with self._lock:
            is_stopped = job.is_stopped_review and review is not None and review.status == "stopped"
            if job.id not in self._jobs:
                raise self._not_found(identifier)
            if job.session is None or not is_stopped:
                raise BadRequest("review", f"only a stopped review can be resumed; this job is {job.status}")
            self._front.reviews.enter(job.terms.tenant, job.cost)
            ended = job.error, job.completed_at, job.expires_at
            # From here on the job counts as under way, so it neither expires nor is resumed twice.
            job.status, job.error, job.completed_at, job.expires_at = "queued", None, None, None
        try:
            self._folder.write(job)
            job.session.resume()
        except BaseException as error:
            self._stay_stopped(job, *ended)
            if not isinstance(error, OSError):
                raise
            raise StorageError(f"the review cannot continue: {error.strerror} on the server's disk") from None
        job.accepted_s = time.monotonic()
        self._start(job)
        return job

    def _stay_stopped(
        self, job: VideoJob, error: dict[str, str] | None, completed_at: int | None, expires_at: int | None
    ) -> None:
        """Take back that a review is resumed."""
        self._front.reviews.leave(job.terms.tenant, job.cost, is_done=False)
        with self._lock:
            job.status, job.error, job.completed_at, job.expires_at = "failed", error, completed_at, expires_at
            is_deleted = job.cancelled.is_set()
        if is_deleted:
            self._folder.remove(job)

    def get(self, identifier: str) -> VideoJob:
        """Return a job. Raises: NotFound: it is unknown, deleted or expired."""
        self._expire()
        job = self._jobs.get(identifier)
        if job is None:
            raise self._not_found(identifier)
        return job

    def _not_found(self, identifier: str) -> NotFound:
        if identifier not in self._expired:
            return NotFound("video_id", f"no video `{identifier[:60]}`; it is unknown or deleted")
        settings = self._front.config.serving
        text = f"finished videos are kept for {settings.keep_videos_s:g} s"
        reviews = f"stopped reviews for {settings.keep_reviews_s:g} s"
        return NotFound("video_id", f"`{identifier}` has expired: {text}, {reviews}")

    def all(self) -> list[VideoJob]:
        """Return all jobs, oldest first."""
        self._expire()
        return list(self._jobs.values())

    def delete(self, identifier: str) -> VideoJob:
        """Cancel a job and remove it with its files."""
        job = self.get(identifier)
        with self._lock:
            job.cancelled.set()
            self._jobs.pop(identifier, None)
            has_ended = job.has_ended
        if has_ended:
            self._folder.remove(job)  # otherwise its thread, which still uses them, removes them
        return job

    def file(self, job: VideoJob, variant: str = "video") -> Path:
        """Return the path of a finished job's `video` or `thumbnail`."""
        return self._folder.file(job, variant)

    @property
    def num_left(self) -> int:
        """Number of jobs that have not ended."""
        return sum(not job.has_ended for job in list(self._jobs.values()))

    def stop(self) -> None:
        """Ask all jobs to stop; the next server of the run can resume their reviews."""
        self._closing.set()

    def close(self) -> None:
        """Stop all jobs, and wait until they have stopped."""
        self.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._removals.shutdown(wait=True)

    def _take_up(self, job: VideoJob) -> None:
        """Take over a job of an earlier server; one that had not ended counts as failed."""
        now = int(time.time())
        if job.expires_at is not None and job.expires_at <= now:
            self._expired.append(job.id)
            self._folder.remove(job)
            return
        if not job.has_ended:
            self._folder.remove_unfinished(job)
            if job.session is not None:
                job.session.stop()
            job.status, job.error = "failed", _interrupted(job)
            job.completed_at, job.expires_at = now, now + self._kept_s(job, "failed")
        self._jobs[job.id] = job

    def _kept_s(self, job: VideoJob, status: Status) -> int:
        settings = self._front.config.serving
        can_resume = status == "failed" and job.session is not None
        return round(settings.keep_reviews_s if can_resume else settings.keep_videos_s)

    def _expire(self) -> None:
        now = time.time()
        with self._lock:
            ended = [job for job in self._jobs.values() if job.expires_at is not None]
            old = [job for job in ended if (job.expires_at or 0) <= now]
            # stopped reviews have a limit of their own, so no number of videos removes them
            old = old or surplus([job for job in ended if not job.is_stopped_review], MAX_NUM_KEPT_VIDEOS)
            self._forget(old)
        for job in old:
            self._remove_later(job)

    def _remove_later(self, job: VideoJob) -> None:
        """Remove the files of a job that expired, in a thread: the request that noticed it does not wait for a disk."""
        if not self._closing.is_set():
            self._removals.submit(self._remove, job)
        else:
            self._remove(job)

    def _remove(self, job: VideoJob) -> None:
        try:
            self._folder.remove(job)
        except OSError:
            log.exception("the files of video job %s cannot be removed; the next server of this run will try", job.id)

    def _run(self, job: VideoJob) -> None:
        with spans.span(f"task {job.request.task}", {"mora.video_id": job.id}) as span:
            self._complete(job)
            if span is not None and job.error is not None:
                span.error = job.error["code"]

    def _complete(self, job: VideoJob) -> None:
        status: Status = "failed"
        try:
            self._work.make(job)
            status, job.progress = "completed", 100
        except MoraError as error:
            job.error = {"code": error.code, "message": str(error)}
        except Exception as error:
            # the boundary of a job: the client sees the error's type, the log its traceback
            log.exception("video job %s failed", job.id)
            job.error = {"code": "failed", "message": type(error).__name__}
        self._end(job, status)

    def _end(self, job: VideoJob, status: Status) -> None:
        if status == "failed" and (self._closing.is_set() or self._work.is_left_to_resume(job)):
            job.error = _interrupted(job)
        job.request = replace(job.request, image=None, videos=())
        job.completed_at = int(time.time())
        job.expires_at = job.completed_at + self._kept_s(job, status)
        try:
            if status == "failed" and job.session is not None:
                job.session.stop()
            self._folder.write(job, status=status)
        except OSError:
            log.exception("the end of video job %s cannot be recorded", job.id)
        admission = self._front.admission if job.session is None else self._front.reviews
        admission.leave(job.terms.tenant, job.cost, is_done=status == "completed")
        with self._lock:
            job.status = status  # last, because the job may be resumed from here on
            is_deleted = job.cancelled.is_set()
        self._count_end(job)
        if not job.ended.done():
            job.ended.set_result(None)
        if is_deleted:
            self._folder.remove(job)
        elif job.is_stopped_review:
            self._make_room(job.terms.tenant)

    def _count_end(self, job: VideoJob) -> None:
        code = "" if job.error is None else job.error["code"]
        reason: FinishedReason = "completed" if job.status == "completed" else "failed"
        if job.cancelled.is_set() or code in (Cancelled.code, Stopped.code):
            reason = "cancelled"
        self._front.pool.counters.count_end(job.request.task, reason, code, time.monotonic() - job.accepted_s)

    def _is_given_up(self, job: VideoJob) -> bool:
        return job.cancelled.is_set() or self._closing.is_set()


def _interrupted(job: VideoJob) -> dict[str, str]:
    if job.session is not None:
        return {"code": "review_stopped", "message": "the server was stopped; the review can be resumed"}
    return {"code": "server_stopped", "message": "the server was stopped before the video was done; create it again"}
