"""Video jobs: each a run of a task in a thread of its own, its result a file of the run until it expires.

So many work at a time as `serving.max_video_jobs` says; one that waits for a reviewer is not counted meanwhile.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mora_runtime.errors import Cancelled, MoraError

from mora_launch.review.decision import Decision
from mora_launch.review.reviewed_stages import ReviewedStages, run_reviewed
from mora_launch.review.session import ReviewSession
from mora_launch.serving.http.front import Front, NotFound
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import Clip, encode, fitted, png
from mora_launch.tasks.procedures import run_task
from mora_launch.tasks.prompt_agent import prompt_agent
from mora_launch.tasks.request import TaskRequest
from mora_launch.tasks.stages import Unreviewed

log = logging.getLogger(__name__)
_NUM_EXPIRED_KNOWN = 10_000  # who asks for one of these is told why it is gone
_TURN_TICK_S = 0.2
MEDIA_TYPES = {"mp4": "video/mp4", "webm": "video/webm", "gif": "image/gif"}


@dataclass
class VideoJob:
    """One task on its way; `status` as OpenAI names it."""

    request: TaskRequest
    model: str
    size: tuple[int, int]  # height, width of the output
    kind: str
    codec: str | None
    id: str = field(default_factory=lambda: f"video_{uuid.uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))
    status: Literal["queued", "in_progress", "completed", "failed"] = "queued"
    progress: int = 0
    stage: str = ""
    seconds: float = 0.0
    completed_at: int | None = None
    expires_at: int | None = None
    error: dict[str, str] | None = None
    session: ReviewSession | None = None  # where somebody looks after each stage
    cancelled: threading.Event = field(default_factory=threading.Event)

    def as_json(self) -> dict[str, Any]:
        """OpenAI's `Video`, with task, seed and stage beside."""
        return {
            "id": self.id, "object": "video", "created_at": self.created_at, "status": self.status,
            "model": self.model, "progress": self.progress, "prompt": self.request.prompt,
            "seconds": f"{self.seconds or self.request.seconds or 0:g}", "size": f"{self.size[1]}x{self.size[0]}",
            "completed_at": self.completed_at, "expires_at": self.expires_at, "error": self.error,
            "remixed_from_video_id": None, "task": self.request.task, "seed": self.request.seed, "stage": self.stage,
        }  # fmt: skip


class VideoJobs:
    """All jobs of this server; those that are done are forgotten when they expire."""

    def __init__(self, front: Front, folder: Path) -> None:
        self._front = front
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._jobs: dict[str, VideoJob] = {}
        self._expired: deque[str] = deque(maxlen=_NUM_EXPIRED_KNOWN)
        self._lock = threading.Lock()
        settings = front.config.serving
        self._threads = ThreadPoolExecutor(settings.max_waiting, thread_name_prefix="task")
        self._working = threading.Semaphore(settings.max_video_jobs)
        self._prompts = prompt_agent(front.config.serving.prompts)

    def create(self, job: VideoJob) -> VideoJob:
        """Queue a job. Raises: TooBusy."""
        self._expire()
        self._front.admission.enter()
        with self._lock:
            self._jobs[job.id] = job
        self._threads.submit(self._run, job)
        return job

    def resume(self, identifier: str) -> VideoJob:
        """Go on with a job whose review was stopped, or that nobody decided about in time.

        Raises:
            BadRequest: it was not stopped.
            TooBusy, NotFound: as of `create` and `get`.
        """
        job = self.get(identifier)
        with self._lock:
            if job.session is None or job.status != "failed" or job.session.state().status != "stopped":
                raise BadRequest("review", f"only a review that was stopped can be resumed; this job is {job.status}")
            self._front.admission.enter()
            ReviewSession.create(job.session.folder, {})
            job.status, job.error, job.completed_at, job.expires_at = "queued", None, None, None
        self._threads.submit(self._run, job)
        return job

    def get(self, identifier: str) -> VideoJob:
        """Raises: NotFound: unknown, deleted or expired."""
        self._expire()
        job = self._jobs.get(identifier)
        if job is None and identifier in self._expired:
            kept_s = self._front.config.serving.keep_videos_s
            raise NotFound("video_id", f"`{identifier}` has expired: finished videos are kept for {kept_s:g} s")
        if job is None:
            raise NotFound("video_id", f"no video `{identifier[:60]}`; it is unknown or deleted")
        return job

    def all(self) -> list[VideoJob]:
        """Oldest first."""
        self._expire()
        return list(self._jobs.values())

    def delete(self, identifier: str) -> VideoJob:
        """Cancel or forget a job."""
        job = self.get(identifier)
        job.cancelled.set()
        with self._lock:
            self._jobs.pop(identifier, None)
        if job.status in ("completed", "failed"):
            self._remove_files(job)  # else its thread does, which still works with them
        return job

    def file(self, job: VideoJob, variant: str = "video") -> Path:
        """Where a finished job's bytes are."""
        return self._folder / (f"{job.id}.{job.kind}" if variant == "video" else f"{job.id}.png")

    def close(self) -> None:
        """Cancel everything that runs."""
        for job in list(self._jobs.values()):
            job.cancelled.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _expire(self) -> None:
        now = time.time()
        with self._lock:
            old = [job for job in self._jobs.values() if job.expires_at is not None and job.expires_at <= now]
            for job in old:
                del self._jobs[job.id]
                self._expired.append(job.id)
        for job in old:
            self._remove_files(job)

    def _remove_files(self, job: VideoJob) -> None:
        for variant in ("video", "thumbnail"):
            self.file(job, variant).unlink(missing_ok=True)
        if job.session is not None:
            shutil.rmtree(job.session.folder, ignore_errors=True)

    def _run(self, job: VideoJob) -> None:
        status: Literal["completed", "failed"] = "failed"
        try:
            with _Place(self._working, job.cancelled) as place:
                job.status = "in_progress"
                self._make(job, place)
            status, job.progress = "completed", 100
        except MoraError as error:
            job.error = {"code": error.code, "message": str(error)}
        except Exception as error:
            # the boundary of the job: the client gets the type, the log the traceback
            log.exception("video job %s failed", job.id)
            job.error = {"code": "failed", "message": type(error).__name__}
        finally:
            job.completed_at = int(time.time())
            job.expires_at = job.completed_at + round(self._front.config.serving.keep_videos_s)
            job.status = status  # after the others: from now on it may be resumed
            if job.cancelled.is_set():
                self._remove_files(job)
            self._front.admission.leave()

    def _make(self, job: VideoJob, place: _Place) -> None:
        request, config = job.request, self._front.config
        counted = _StageCount(job)
        agents = Agents(
            self._front.pool, self._prompts, sampling=request.sampling(),
            deadline_s=config.serving.call_deadline_s, on_step=counted.step, is_cancelled=job.cancelled.is_set,
        )  # fmt: skip
        counted.expect(request, agents.num_frames)
        clip = fitted(self._frames(job, agents, counted, place), *job.size)
        job.seconds = len(clip) / request.fps
        metadata = {
            "task": request.task, "prompt": request.prompt, "seed": request.seed, "seconds": request.seconds,
            "sampling": request.sampling(), "strength": request.strength,
            "models": {name: self._front.pool.describe(name)["model"] for name in self._front.pool.abilities()},
        }  # fmt: skip
        self.file(job).write_bytes(encode(clip, request.fps, job.kind, metadata, job.codec))
        self.file(job, "thumbnail").write_bytes(png(clip[0]))

    def _frames(self, job: VideoJob, agents: Agents, counted: _StageCount, place: _Place) -> Clip:
        if job.session is None:
            return run_task(job.request, agents, Unreviewed(job.request.seed, counted.stage))
        timeout_s = self._front.config.serving.review_timeout_s

        def ask(session: ReviewSession) -> Decision:
            place.leave()  # others work while this one waits for a person
            decision = session.wait_decision(timeout_s, job.cancelled.is_set)
            place.take()
            return decision

        stages = ReviewedStages(job.session, agents, job.request, ask, counted.stage)
        return run_reviewed(job.request, agents, stages, job.session)


class _Place:
    """One of the places of jobs that work; entering takes it."""

    def __init__(self, places: threading.Semaphore, cancelled: threading.Event) -> None:
        self._places = places
        self._cancelled = cancelled
        self._is_held = False

    def take(self) -> None:
        """Wait for it. Raises: Cancelled: the job was, meanwhile."""
        while not self._places.acquire(timeout=_TURN_TICK_S):
            if self._cancelled.is_set():
                raise Cancelled("the task was cancelled")
        self._is_held = True

    def leave(self) -> None:
        """For the next; nothing where it is not held."""
        if self._is_held:
            self._is_held = False
            self._places.release()

    def __enter__(self) -> _Place:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


class _StageCount:
    """A job's progress from its stages and their steps."""

    def __init__(self, job: VideoJob) -> None:
        self._job = job
        self._expected = 1
        self._begun = 0

    def expect(self, request: TaskRequest, num_frames: int) -> None:
        """How many stages there will be, about."""
        seconds = request.seconds or num_frames / request.fps
        self._expected = max(1, round(seconds * request.fps / max(1, num_frames - 1))) + (not request.videos) * 2

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._begun += 1
        self._job.stage = name

    def step(self, ability: str, step: int, num_steps: int) -> None:
        """A step of it is done."""
        done = (self._begun - 1 + step / num_steps) / max(self._expected, self._begun)
        self._job.progress = max(self._job.progress, min(99, int(done * 100)))
