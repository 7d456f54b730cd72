"""Video jobs under review, over servers that answer at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_launch.config import load_config
from mora_launch.review.decision import Decision
from mora_launch.review.session import ReviewSession
from mora_launch.serving.http.admission import Admission
from mora_launch.serving.http.front import Front
from mora_launch.serving.http.video_jobs import VideoJob, VideoJobs
from mora_launch.serving.work_queue import Work
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.request import TaskRequest

TINY = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"


class PromptPool:
    """Abilities whose work is done when it is submitted."""

    def describe(self, ability: str) -> dict[str, Any]:
        return {"model": "drawn", "height": 16, "width": 16, "num_frames": 3}

    def abilities(self) -> list[str]:
        return ["text_to_image", "image_to_video"]

    def submit(self, ability: str, sample: dict[str, Any], shared: dict[str, Any], on_step: Any = None) -> Work:
        work = Work(ability, sample, shared, on_step)
        shape = (16, 16, 3) if ability == "text_to_image" else (3, 16, 16, 3)
        work.finish(np.full(shape, sample["seeds"] % 251, dtype=np.uint8))
        return work


@pytest.fixture
def make_jobs(tmp_path: Path) -> Iterator[Callable[..., VideoJobs]]:
    made: list[VideoJobs] = []

    def make(*changes: str) -> VideoJobs:
        config = load_config(TINY, ["serving.max_video_jobs=1", *changes])
        pool: Any = PromptPool()
        made.append(VideoJobs(Front(pool, config, Admission(config.serving.max_waiting)), tmp_path / "videos"))
        return made[-1]

    yield make
    for jobs in made:
        jobs.close()


def job(folder: Path | None = None) -> VideoJob:
    request = TaskRequest("text_to_video", "a cat", 7, 8.0, strength=0.5)
    session = None if folder is None else ReviewSession.create(folder, {})
    return VideoJob(request, "mora", (16, 16), "mp4", None, session=session)


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waits(each: VideoJob) -> bool:
    assert each.session is not None
    return each.session.state().status == "waiting"


def decide(each: VideoJob, action: Any) -> None:
    assert each.session is not None
    until(lambda: waits(each))
    each.session.decide(Decision(version=each.session.state().version, action=action))


def test_jobs_that_wait_for_a_person_leave_their_place_to_others(make_jobs: Any, tmp_path: Path) -> None:
    jobs = make_jobs()
    reviewed = [jobs.create(job(tmp_path / f"{number}.review")) for number in range(2)]
    until(lambda: all(waits(each) for each in reviewed))
    plain = jobs.create(job())
    until(lambda: plain.status == "completed")
    for each in reviewed:
        for _ in ("prompt", "image", "segment 1"):
            decide(each, "accept")
        until(lambda each=each: each.status == "completed")  # type: ignore[misc]
        assert jobs.file(each).read_bytes() == jobs.file(plain).read_bytes()
        jobs.delete(each.id)
    assert {path.stem for path in tmp_path.rglob("*") if path.is_file()} == {plain.id}, "nothing else is left"


def test_a_review_that_was_stopped_is_resumed_where_it_was(make_jobs: Any, tmp_path: Path) -> None:
    jobs = make_jobs()
    made = jobs.create(job(tmp_path / "review"))
    with pytest.raises(BadRequest, match="only a review that was stopped"):
        jobs.resume(made.id)
    decide(made, "accept")
    decide(made, "stop")
    until(lambda: made.status == "failed")
    assert made.error is not None
    assert made.error["code"] == "review_stopped"
    jobs.resume(made.id)
    until(lambda: waits(made))
    assert made.session is not None
    candidate = made.session.state().candidate
    assert candidate is not None
    assert candidate.stage == "image", "the prompt has been accepted"
    decide(made, "accept")
    decide(made, "accept")
    until(lambda: made.status == "completed")


def test_a_review_that_nobody_looks_at_in_time_frees_everything_and_can_be_resumed(
    make_jobs: Any, tmp_path: Path
) -> None:
    jobs = make_jobs("serving.review_timeout_s=0.2", "serving.max_waiting=1")
    made = jobs.create(job(tmp_path / "review"))
    for _ in range(2):
        until(lambda: made.status == "failed")
        assert made.error == {"code": "review_stopped", "message": "nobody decided in time; resume the session later"}
        until(lambda: jobs._front.admission.num_admitted == 0)
        jobs.resume(made.id)


def test_a_job_that_waits_for_its_place_or_for_a_person_can_be_deleted(make_jobs: Any, tmp_path: Path) -> None:
    jobs = make_jobs()
    made = jobs.create(job(tmp_path / "review"))
    until(lambda: waits(made))
    jobs.delete(made.id)
    until(lambda: made.status == "failed")
    until(lambda: not (tmp_path / "review").exists())
    after = jobs.create(job())
    until(lambda: after.status == "completed")
