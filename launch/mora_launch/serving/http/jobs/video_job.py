"""One video job: a run of a task, in the form that clients see."""

from __future__ import annotations

import re
import secrets
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from mora_runtime.errors import SettingsError

from mora_launch.review.decision import ReviewState
from mora_launch.review.session import ReviewSession
from mora_launch.serving.http.jobs.growing_file import GrowingFile
from mora_launch.serving.http.jobs.job_stage import JobStage
from mora_launch.serving.terms import DEFAULT_TERMS, Terms
from mora_launch.tasks.request import TaskRequest

MEDIA_TYPES = {"mp4": "video/mp4", "webm": "video/webm", "gif": "image/gif"}
Status = Literal["queued", "in_progress", "completed", "failed"]  # as OpenAI names them
Place = tuple[int, str]
_ID = re.compile(r"video_([0-9a-f]{16})_[0-9a-f]{16}")


def new_id() -> str:
    """Return an id that begins with the time, so that a list can continue after a job that has been deleted."""
    return f"video_{time.time_ns():016x}_{secrets.token_hex(8)}"


def place_of(identifier: str) -> Place | None:
    """Return the place in the list of a job with this id, whether it exists or not; None if no job can have the id."""
    found = _ID.fullmatch(identifier)
    return None if found is None else (int(found[1], 16), identifier)


@dataclass
class VideoJob:
    """One run of a task.

    Attributes:
        request: the request; without its pictures and videos once the job has ended.
        remixed_from: id of the finished video that it was made from.
        cancelled: set when the job is being deleted.
        ended: done when the job ends for the first time.
        seconds: length of the result; until it is made, the length that it will have.
        live: the frames that are made so far; None if a person may still change them.
    """

    request: TaskRequest
    model: str
    size: tuple[int, int]  # height, width of the output
    kind: str
    codec: str | None
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=lambda: int(time.time()))
    accepted_s: float = field(default_factory=time.monotonic)  # now, or when it was resumed
    status: Status = "queued"
    progress: int = 0
    stage: str = ""
    num_stages: int = 0  # an estimate
    stages: list[JobStage] = field(default_factory=list)  # those that have begun
    seconds: float = 0.0
    completed_at: int | None = None
    expires_at: int | None = None
    error: dict[str, str] | None = None
    notes: tuple[str, ...] = ()  # about the given videos
    loses_sound: bool = False
    remixed_from: str | None = None
    terms: Terms = DEFAULT_TERMS
    cost: float = 0.0  # megapixel-steps
    session: ReviewSession | None = None  # only of a reviewed job
    live: GrowingFile | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: Future[None] = field(default_factory=Future)

    @cached_property
    def place(self) -> Place:
        """Its place in the list of all jobs, which are in the order of their creation."""
        return place_of(self.id) or (self.created_at * 10**9, self.id)

    @property
    def has_ended(self) -> bool:
        """Whether it has completed or failed; a stopped review counts as failed and can be resumed."""
        return self.status in ("completed", "failed")

    @property
    def is_stopped_review(self) -> bool:
        """Whether it has a review that can be resumed."""
        return self.session is not None and self.status == "failed"

    def review(self) -> ReviewState | None:
        """Return the state of its review; None without a review, or if it is being deleted."""
        try:
            return None if self.session is None else self.session.state()
        except SettingsError:
            if self.session is not None and not self.session.folder.exists():
                return None
            raise

    def as_json(self) -> dict[str, Any]:
        """Return OpenAI's `Video` object, with task, seed, stage and the review's status added."""
        review = self.review()
        return {
            "id": self.id, "object": "video", "created_at": self.created_at, "status": self.status,
            "model": self.model, "progress": self.progress, "prompt": self.request.prompt,
            "seconds": f"{self.seconds or self.request.seconds or 0:g}", "size": f"{self.size[1]}x{self.size[0]}",
            "completed_at": self.completed_at, "expires_at": self.expires_at, "error": self.error,
            "remixed_from_video_id": self.remixed_from, "task": self.request.task, "seed": self.request.seed,
            "stage": self.stage, "review": None if review is None else review.status, "notes": list(self.notes),
            **({"audio": "left out"} if self.loses_sound else {}),
            **({} if self.terms.lora is None else {"lora": self.terms.lora.model_dump()}),
        }  # fmt: skip
