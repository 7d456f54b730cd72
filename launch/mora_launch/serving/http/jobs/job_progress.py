"""The progress of a video job."""

from __future__ import annotations

from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.tasks.request import TaskRequest


class JobProgress:
    """Computes a job's progress from its stages and their steps."""

    def __init__(self, job: VideoJob) -> None:
        self._job = job
        self._expected = 1
        self._begun = 0

    def expect(self, request: TaskRequest, num_frames: int) -> None:
        """Estimate the number of stages."""
        seconds = request.seconds or num_frames / request.fps
        self._expected = max(1, round(seconds * request.fps / max(1, num_frames - 1))) + (not request.videos) * 2

    def stage(self, name: str) -> None:
        """Record that a stage begins."""
        self._begun += 1
        self._job.stage = name

    def step(self, capability: str, step: int, num_steps: int) -> None:
        """Record that a step of the current stage is done."""
        done = (self._begun - 1 + step / num_steps) / max(self._expected, self._begun)
        self._job.progress = max(self._job.progress, min(99, int(done * 100)))
