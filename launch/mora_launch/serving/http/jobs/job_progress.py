"""The progress of a video job: its stages and their steps."""

from __future__ import annotations

from mora_data.reading.fitting import Clip

from mora_launch.config.capability import PICTURES
from mora_launch.limits import MAX_NUM_STAGE_PICTURES
from mora_launch.serving.http.jobs.job_stage import JobStage
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.tasks.catalog import TASKS
from mora_launch.tasks.request import TaskRequest


class JobProgress:
    """Computes a job's progress from its stages and their steps."""

    def __init__(self, job: VideoJob) -> None:
        self._job = job
        self._begun = 0

    def expect(self, request: TaskRequest, num_frames: int) -> None:
        """Estimate the number of stages."""
        seconds = request.seconds or num_frames / request.fps
        num_clips = max(1, round(seconds * request.fps / max(1, num_frames - 1)))
        task = TASKS[request.task]
        makes_picture = any(capability in PICTURES for capability in task.capabilities)
        makes_prompt = "enhance" in task.fields and request.enhance
        self._job.num_stages = num_clips + makes_picture + makes_prompt
        self._job.stages = []

    def stage(self, name: str) -> None:
        """Record that a stage begins; one that begins again replaces itself and those after it."""
        self._begun += 1
        self._job.stage = name
        names = [stage.name for stage in self._job.stages]
        kept = self._job.stages[: names.index(name)] if name in names else self._job.stages
        self._job.stages = [*kept, JobStage(name)]

    def result(self, name: str, made: Clip | str) -> None:
        """Record what a stage has made; a stage that was accepted before this server started appears here first."""
        stage = next((stage for stage in self._job.stages if stage.name == name), None)
        if stage is None:
            stage = JobStage(name)
            self._job.stages = [*self._job.stages, stage]
        stage.end_with(made)
        pictured = [each for each in self._job.stages if each.picture is not None]
        for early in pictured[1:-MAX_NUM_STAGE_PICTURES]:
            early.picture = None

    def step(self, capability: str, step: int, num_steps: int) -> None:
        """Record that a step of the current stage is done."""
        if self._job.stages:
            current = self._job.stages[-1]
            current.step, current.num_steps, current.has_ended = step, num_steps, False
        done = (self._begun - 1 + step / num_steps) / max(self._job.num_stages, self._begun)
        self._job.progress = max(self._job.progress, min(99, int(done * 100)))
