"""Video jobs on disk, so that a server that is restarted on the same run finds them.

Files of each job: `ID.json`, its record; `ID.mp4` (or `.webm`, `.gif`) and `ID.png`, its result; for a reviewed job
`ID.review/`, the session, with the uploaded files as `input-N`; while it runs `ID.live.mp4`, the frames that are made
so far, and `ID.partial.mp4`, which becomes the result. The record is removed last, so that a removal that was
interrupted can be repeated.

The paths of a job follow from its id. No method but `read_all` lists the folder, which contains the files of thousands
of jobs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mora_runtime.errors import MoraError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.schema import Settings, read_settings

from mora_launch.limits import MAX_NUM_FILES
from mora_launch.review.session import ReviewSession
from mora_launch.serving.http.jobs.video_encoding import partial_of
from mora_launch.serving.http.jobs.video_job import Status, VideoJob
from mora_launch.serving.terms import DEFAULT_TERMS, Terms
from mora_launch.tasks.request import TaskRequest

log = logging.getLogger(__name__)


class RecordedRequest(Settings):
    """A `TaskRequest` without its pictures and videos."""

    task: str
    prompt: str
    seed: int
    fps: float
    seconds: float | None
    strength: float | None
    num_inference_steps: int | None
    guidance_scale: float | None
    enhance: bool
    negative_prompt: str | None = None


class JobRecord(Settings):
    """`ID.json`: a `VideoJob` as it was created, resumed, or ended."""

    request: RecordedRequest
    model: str
    size: tuple[int, int]
    kind: str
    codec: str | None
    id: str
    created_at: int
    status: Status
    progress: int
    stage: str
    seconds: float
    completed_at: int | None
    expires_at: int | None
    error: dict[str, str] | None
    notes: tuple[str, ...] = ()
    loses_sound: bool = False
    terms: Terms = DEFAULT_TERMS
    cost: float = 0.0
    remixed_from: str | None = None
    is_reviewed: bool


class JobFolder:
    """The folder of all jobs of a run.

    Args:
        path: created if missing, private to the user.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True, mode=0o700)
        self._path = path

    def file(self, job: VideoJob, variant: str = "video") -> Path:
        """Return the path of a finished job's `video` or `thumbnail`."""
        return self._path / (f"{job.id}.{job.kind}" if variant == "video" else f"{job.id}.png")

    def live(self, job: VideoJob) -> Path:
        """Return the path of the frames that a running job has made, for viewers."""
        return self._path / f"{job.id}.live.mp4"

    def write(self, job: VideoJob, **changes: Any) -> None:
        """Write a job's record.

        Args:
            changes: fields of `JobRecord` that replace those of the job.

        Raises:
            OSError: it could not be written; an older record is kept.
        """
        fields = {name: getattr(job, name) for name in JobRecord.model_fields if hasattr(job, name)}
        fields["request"] = {name: getattr(job.request, name) for name in RecordedRequest.model_fields}
        record = JobRecord(**{**fields, "is_reviewed": job.session is not None, **changes})
        replace_text(self._record(job.id), record.model_dump_json(indent=1))

    def open_session(self, job: VideoJob, inputs: Sequence[bytes]) -> ReviewSession:
        """Create the review of a job, and store the uploaded files for its resumption."""
        session = ReviewSession.create(self._session(job.id), {"task": job.request.task, "prompt": job.request.prompt})
        for number, content in enumerate(inputs):
            (session.folder / f"input-{number}").write_bytes(content)
        return session

    def inputs(self, job: VideoJob) -> list[bytes]:
        """Return the uploaded files of a reviewed job, in order."""
        folder = self._session(job.id)
        paths = [folder / f"input-{number}" for number in range(MAX_NUM_FILES)]
        return [path.read_bytes() for path in [*paths, *self._old_inputs(job)] if path.is_file()]

    def _old_inputs(self, job: VideoJob) -> list[Path]:
        """Return where servers of earlier versions stored the uploaded files, some of which may not exist."""
        return [self._path / f"{job.id}.input-{number}" for number in range(MAX_NUM_FILES)]

    def review_changed_ns(self, job: VideoJob) -> int:
        """Return when a file of a review was last created, replaced or removed; 0 if the review has been removed."""
        try:
            return self._session(job.id).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def review_nbytes(self, job: VideoJob) -> int:
        """Return the size on disk of a review and its uploaded files."""
        nbytes = 0
        with suppress(FileNotFoundError), os.scandir(self._session(job.id)) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # the job may remove files meanwhile
                    nbytes += entry.stat(follow_symlinks=False).st_size
        for path in self._old_inputs(job):
            with suppress(FileNotFoundError):
                nbytes += path.stat().st_size
        return nbytes

    def remove(self, job: VideoJob) -> None:
        """Remove all files of a job."""
        shutil.rmtree(self._session(job.id), ignore_errors=True)
        self.remove_unfinished(job)
        for path in [self.file(job), self.file(job, "thumbnail"), *self._old_inputs(job)]:
            path.unlink(missing_ok=True)
        self._record(job.id).unlink(missing_ok=True)

    def remove_unfinished(self, job: VideoJob) -> None:
        """Remove what a server that was killed had made of a job's result."""
        self.live(job).unlink(missing_ok=True)
        partial_of(self.file(job)).unlink(missing_ok=True)

    def read_all(self) -> list[VideoJob]:
        """Return all jobs, oldest first; an unreadable record is logged and skipped."""
        return sorted(self._read(), key=lambda job: (job.created_at, job.id))

    def _read(self) -> Iterator[VideoJob]:
        for path in self._path.glob("video_*.json"):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                yield self._job(read_settings(JobRecord, content, source=path.name))
            except (OSError, ValueError, MoraError):
                log.exception("%s is skipped: it is not a valid record of a video job", path.name)

    def _job(self, record: JobRecord) -> VideoJob:
        fields = {name: getattr(record, name) for name in JobRecord.model_fields}
        session = ReviewSession(self._session(record.id)) if fields.pop("is_reviewed") else None
        if session is not None:
            session.state()  # raises if the session cannot be read
        request = TaskRequest(**record.request.model_dump())
        return VideoJob(**{**fields, "request": request, "session": session})

    def _record(self, identifier: str) -> Path:
        return self._path / f"{identifier}.json"

    def _session(self, identifier: str) -> Path:
        return self._path / f"{identifier}.review"
