"""Makes the video of one job: waits for a slot, runs the task, encodes the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from mora_data.reading.fitting import Clip, fitted

from mora_launch.chat.prompt_agent import prompt_agent
from mora_launch.review.decision import StageDecision
from mora_launch.review.reviewed_stages import ReviewedStages, run_reviewed
from mora_launch.review.session import ReviewSession
from mora_launch.serving.counters import FRONT
from mora_launch.serving.http.front import Front
from mora_launch.serving.http.jobs.growing_file import GrowingFile
from mora_launch.serving.http.jobs.job_folder import JobFolder
from mora_launch.serving.http.jobs.job_progress import JobProgress
from mora_launch.serving.http.jobs.job_slot import JobSlots
from mora_launch.serving.http.jobs.video_encoding import VideoEncoding
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.tasks.agents import Agents
from mora_launch.tasks.inputs import decoded_now, input_jobs
from mora_launch.tasks.media import png
from mora_launch.tasks.procedures import task_pieces
from mora_launch.tasks.request import TaskRequest, check_request
from mora_launch.tasks.stages import Unreviewed
from mora_launch.telemetry import spans


class JobWork:
    """Makes the videos of all jobs, each in the thread that calls it.

    Args:
        is_given_up: whether a job was cancelled, or the server ends.
    """

    def __init__(self, front: Front, folder: JobFolder, is_given_up: Callable[[VideoJob], bool]) -> None:
        self._front = front
        self._folder = folder
        self._is_given_up = is_given_up
        self._slots = JobSlots(front.config.serving.max_video_jobs)
        self._prompts = prompt_agent(front.config.serving.prompts)

    def make(self, job: VideoJob) -> None:
        """Make the video and its thumbnail. Raises: MoraError, or any error of a task."""
        with ExitStack() as slot:
            slot.enter_context(self._slot(job))
            job.status = "in_progress"
            self._make(job, slot)

    def is_left_to_resume(self, job: VideoJob) -> bool:
        """Whether the server drains and no longer waits for the job's reviewer."""
        return job.session is not None and self._front.drain.has_begun

    @contextmanager
    def _slot(self, job: VideoJob) -> Iterator[None]:
        came_ns = time.monotonic_ns()
        with self._slots.occupied(job.terms, job.cost, lambda: self._is_given_up(job)):
            begun_ns = time.monotonic_ns()
            self._front.pool.counters.queue_s.labels("task", FRONT).observe((begun_ns - came_ns) / 1e9)
            spans.past("wait in queue", spans.current.get(), came_ns, begun_ns, {})
            yield

    def _make(self, job: VideoJob, slot: ExitStack) -> None:
        request = self._whole_request(job)
        progress = JobProgress(job)
        job.live = GrowingFile(self._folder.live(job)) if job.session is None else None
        encoding = VideoEncoding(
            self._folder.file(job), job.size, request.fps, job.kind, job.codec, self._metadata(job, request),
            live=job.live, is_cancelled=lambda: self._is_given_up(job),
        )  # fmt: skip
        agents = Agents(
            self._front.pool, self._prompts, sampling=request.sampling(), terms=job.terms,
            deadline_s=self._front.config.serving.call_deadline_s, on_step=progress.step,
            is_cancelled=lambda: self._is_given_up(job), on_frames=None if job.session else encoding.append_early,
        )  # fmt: skip
        progress.expect(request, agents.num_frames)
        if job.session is None:
            pieces = task_pieces(request, agents, Unreviewed(request.seed, progress.stage, progress.result))
        else:
            pieces = iter([self._reviewed(job, job.session, request, agents, progress, slot)])
        with encoding:
            for piece in pieces:
                if encoding.num_frames == 0:
                    self._folder.file(job, "thumbnail").write_bytes(png(fitted(piece[:1], *job.size)[0]))
                encoding.append(piece)
        self._front.pool.counters.stage_s.labels("encode", FRONT).observe(encoding.spent_ns / 1e9)
        job.seconds = encoding.num_frames / request.fps

    def _metadata(self, job: VideoJob, request: TaskRequest) -> dict[str, Any]:
        pool = self._front.pool
        return {
            "task": request.task, "prompt": request.prompt, "seed": request.seed, "seconds": request.seconds,
            "sampling": request.sampling(), "strength": request.strength,
            "models": {name: pool.describe(name)["model"] for name in pool.capabilities()},
            **({} if job.terms.lora is None else {"lora": pool.adapters.record(job.terms.lora)}),
        }  # fmt: skip

    def _whole_request(self, job: VideoJob) -> TaskRequest:
        """Return the job's request; a resumed job reads its uploaded files again. Raises: BadRequest."""
        if job.session is None or job.request.image is not None or job.request.videos:
            return job.request
        settings = self._front.config.serving
        jobs = input_jobs(self._folder.inputs(job), "input_reference", settings, self._front.video_size())
        image, videos = decoded_now(self._front.decoders, jobs, job.terms.tenant, lambda: self._is_given_up(job))
        request = replace(job.request, image=image, videos=videos)
        check_request(
            request, self._front.pool, settings
        )  # this server's configuration may differ from that of the last one
        return request

    def _reviewed(
        self, job: VideoJob, session: ReviewSession, request: TaskRequest, agents: Agents, progress: JobProgress,
        slot: ExitStack,
    ) -> Clip:  # fmt: skip
        timeout_s = self._front.config.serving.review_timeout_s

        def ask(session: ReviewSession) -> StageDecision:
            slot.close()  # another job may run while this one waits for a person
            decision = session.wait_decision(timeout_s, lambda: self._is_given_up(job) or self.is_left_to_resume(job))
            slot.enter_context(self._slot(job))
            return decision

        stages = ReviewedStages(session, agents, request, ask, progress.stage, progress.result)
        return run_reviewed(request, agents, stages, session)
