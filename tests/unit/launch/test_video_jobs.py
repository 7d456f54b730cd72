"""Video jobs under review, with servers that answer at once."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mora_data.reading.timeline import Video
from mora_launch.config.train_config import load_config
from mora_launch.decoding.video import read_video
from mora_launch.review.decision import StageDecision
from mora_launch.serving.counters import Counters
from mora_launch.serving.http.admission import TooBusy
from mora_launch.serving.http.front import Front, NotFound
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.serving.http.jobs.video_jobs import VideoJobs
from mora_launch.serving.terms import Terms
from mora_launch.serving.work_queue import Work
from mora_launch.tasks.errors import BadRequest
from mora_launch.tasks.media import encode
from mora_launch.tasks.request import TaskRequest
from mora_runtime.errors import StorageError

TINY = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"


class PromptPool:
    """Capabilities whose work is done when it is submitted."""

    def __init__(self) -> None:
        self.counters = Counters()

    def describe(self, capability: str) -> dict[str, Any]:
        return {
            "agent": "drawn", "model": "drawn", "height": 16, "width": 16, "num_frames": 3,
            "least_num_inference_steps": 1,
        }  # fmt: skip

    def capabilities(self) -> list[str]:
        return ["text_to_image", "image_to_video"]

    def submit(self, capability: str, sample: dict[str, Any], shared: dict[str, Any], *rest: Any, **more: Any) -> Work:
        work = Work(capability, sample, shared)
        shape = (16, 16, 3) if capability.endswith("to_image") else (3, 16, 16, 3)
        work.finish(np.full(shape, sample["seeds"] % 251, dtype=np.uint8))
        return work


@pytest.fixture
def make_jobs(tmp_path: Path) -> Iterator[Callable[..., VideoJobs]]:
    made: list[VideoJobs] = []

    def make(*changes: str, tenants: tuple[str, ...] = ()) -> VideoJobs:
        config = load_config(TINY, ["serving.max_video_jobs=1", *changes])
        pool: Any = PromptPool()
        made.append(VideoJobs(Front.over(pool, config, tenants), tmp_path / "videos"))
        return made[-1]

    yield make
    for jobs in made:
        jobs.close()


def job(task: str = "text_to_video", videos: tuple[Video, ...] = (), tenant: str = "") -> VideoJob:
    request = TaskRequest(task, "a cat", 7, 8.0, None, videos, strength=0.5)
    return VideoJob(request, "mora", (16, 16), "mp4", None, terms=Terms(tenant=tenant))


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
    each.session.decide(StageDecision(version=each.session.state().version, action=action))


def test_jobs_that_wait_for_a_person_give_their_slot_to_others(make_jobs: Any, tmp_path: Path) -> None:
    jobs = make_jobs()
    reviewed = [jobs.create(job(), is_reviewed=True) for _ in range(2)]
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


def outcomes(jobs: VideoJobs) -> dict[tuple[str, str], float]:
    """Number of text-to-video requests by outcome and code."""
    metrics = jobs._front.pool.counters.registry.collect()
    samples = [sample for metric in metrics for sample in metric.samples if sample.name == "mora_request_success_total"]
    return {
        (sample.labels["finished_reason"], sample.labels["code"]): sample.value
        for sample in samples
        if sample.labels["kind"] == "text_to_video"
    }


def test_every_stage_of_a_job_has_its_picture_and_its_outcome_is_counted(make_jobs: Any) -> None:
    jobs = make_jobs()
    made = jobs.create(job())
    until(lambda: made.status == "completed")
    told = [(stage.name, stage.as_json()["status"], stage.picture is not None) for stage in made.stages]
    assert told == [("prompt", "completed", False), ("image", "completed", True), ("segment 1", "completed", True)]
    until(lambda: outcomes(jobs) == {("completed", ""): 1})
    value = jobs._front.pool.counters.registry.get_sample_value
    assert value("mora_e2e_request_latency_seconds_count", {"kind": "text_to_video"}) == 1
    for stage in ("prompt", "encode"):
        assert value("mora_stage_seconds_count", {"stage": stage, "agent": "front"}) == 1
    assert value("mora_request_queue_time_seconds_count", {"stage": "task", "agent": "front"}) == 1


def test_a_stage_that_is_made_again_after_going_back_takes_the_place_of_the_old_one(make_jobs: Any) -> None:
    jobs = make_jobs()
    made = jobs.create(job(), is_reviewed=True)
    decide(made, "accept")
    decide(made, "back")
    until(lambda: waits(made))
    assert [stage.name for stage in made.stages] == ["prompt"]
    decide(made, "stop")
    until(lambda: outcomes(jobs) == {("cancelled", "review_stopped"): 1})


def test_a_stopped_review_resumes_where_it_was(make_jobs: Any, tmp_path: Path) -> None:
    jobs = make_jobs()
    made = jobs.create(job(), is_reviewed=True)
    with pytest.raises(BadRequest, match="only a stopped review"):
        jobs.resume(made.id)
    decide(made, "accept")
    decide(made, "stop")
    until(lambda: made.status == "failed")
    assert made.error == {"code": "review_stopped", "message": "stopped; the review can be resumed"}
    jobs.resume(made.id)
    until(lambda: waits(made))
    assert made.session is not None
    candidate = made.session.state().candidate
    assert candidate is not None
    assert candidate.stage == "image", "the prompt has been accepted"
    decide(made, "accept")
    decide(made, "accept")
    until(lambda: made.status == "completed")


def test_a_review_that_times_out_frees_everything_and_can_be_resumed(make_jobs: Any, tmp_path: Path) -> None:
    jobs = make_jobs("serving.review_timeout_s=0.2", "serving.max_reviews=1")
    made = jobs.create(job(), is_reviewed=True)
    for _ in range(2):
        until(lambda: made.status == "failed")
        assert made.error == {"code": "review_stopped", "message": "no decision came in time; resume the session later"}
        until(lambda: jobs._front.reviews.num_admitted == 0)
        jobs.resume(made.id)


def test_a_job_that_waits_for_a_slot_or_for_a_person_can_be_deleted(make_jobs: Any, tmp_path: Path) -> None:
    jobs = make_jobs()
    made = jobs.create(job(), is_reviewed=True)
    until(lambda: waits(made))
    jobs.delete(made.id)
    until(lambda: made.status == "failed")
    until(lambda: not list((tmp_path / "videos").iterdir()))
    after = jobs.create(job())
    until(lambda: after.status == "completed")


def test_the_number_of_reviews_has_its_own_limit(make_jobs: Any) -> None:
    jobs = make_jobs("serving.max_waiting=1", "serving.max_reviews=2")
    reviewed = [jobs.create(job(), is_reviewed=True) for _ in range(2)]
    until(lambda: all(waits(each) for each in reviewed))
    with pytest.raises(TooBusy, match="2 reviews are in progress, the limit is 2"):
        jobs.create(job(), is_reviewed=True)
    plain = jobs.create(job())
    until(lambda: plain.status == "completed")


def restarted(jobs: VideoJobs, make_jobs: Any, *changes: str) -> VideoJobs:
    """The jobs of the next server of the same run."""
    jobs.close()
    following: VideoJobs = make_jobs(*changes)
    return following


def test_the_next_server_has_the_finished_videos(make_jobs: Any) -> None:
    jobs = make_jobs()
    made = jobs.create(job())
    until(lambda: made.status == "completed")
    jobs = restarted(jobs, make_jobs)
    (found,) = jobs.all()
    assert found.as_json() == made.as_json()
    assert jobs.file(found).stat().st_size > 0
    jobs.delete(found.id)
    assert restarted(jobs, make_jobs).all() == []


@pytest.mark.parametrize("was_stopped", [True, False], ids=["stopped", "waiting"])
def test_the_next_server_resumes_a_review_where_it_was(make_jobs: Any, was_stopped: bool) -> None:
    frames = np.arange(3 * 32 * 32 * 3, dtype=np.uint32).reshape(3, 32, 32, 3) % 251
    content = encode(frames.astype(np.uint8), 8.0, "mp4", {})
    given = read_video(content, "video", max_frames=9, size=(16, 16))
    jobs = make_jobs()
    made = jobs.create(job("edit", (given,)), is_reviewed=True, inputs=[content])
    decide(made, "accept")
    until(lambda: waits(made))
    if was_stopped:
        decide(made, "stop")
        until(lambda: made.status == "failed")
    jobs = restarted(jobs, make_jobs)
    (found,) = jobs.all()
    assert (found.id, found.status, found.as_json()["review"]) == (made.id, "failed", "stopped")
    assert found.error is not None
    assert found.error["code"] == "review_stopped"
    jobs.resume(found.id)
    until(lambda: waits(found))
    review = found.review()
    assert review is not None
    assert [accepted.stage for accepted in review.accepted] == ["image"]
    assert review.candidate is not None
    assert review.candidate.stage == "segment 1"
    decide(found, "accept")
    until(lambda: found.status == "completed")
    plain = jobs.create(job("edit", (given,)))
    until(lambda: plain.status == "completed")
    assert jobs.file(found).read_bytes() == jobs.file(plain).read_bytes()


def test_jobs_of_a_killed_server_can_be_resumed(make_jobs: Any, tmp_path: Path) -> None:
    before = make_jobs()
    reviewed = before.create(job(), is_reviewed=True)
    until(lambda: waits(reviewed))
    unfinished = job()
    before._folder.write(unfinished)  # as it stands while the job runs
    (tmp_path / "videos" / "video_broken.json").write_text('{"id": 1')
    jobs = make_jobs()  # the first one had no time to close
    assert {found.id: (found.status, found.error and found.error["code"]) for found in jobs.all()} == {
        reviewed.id: ("failed", "review_stopped"), unfinished.id: ("failed", "server_stopped"),
    }  # fmt: skip
    jobs.resume(reviewed.id)


def test_videos_that_expired_while_no_server_ran_are_deleted_and_reported_as_expired(
    make_jobs: Any, tmp_path: Path
) -> None:
    jobs = make_jobs("serving.keep_videos_s=0.5", "serving.keep_reviews_s=1000")
    made, reviewed = jobs.create(job()), jobs.create(job(), is_reviewed=True)
    until(lambda: made.status == "completed")
    decide(reviewed, "stop")
    until(lambda: reviewed.status == "failed")
    until(lambda: time.time() > made.expires_at)
    jobs = restarted(jobs, make_jobs)
    with pytest.raises(NotFound, match="has expired"):
        jobs.get(made.id)
    assert [found.id for found in jobs.all()] == [reviewed.id]
    assert not list((tmp_path / "videos").glob(f"{made.id}*"))


def test_a_resumed_review_is_kept_even_long_after_it_stopped(make_jobs: Any, tmp_path: Path) -> None:
    jobs = make_jobs()
    made = jobs.create(job(), is_reviewed=True)
    decide(made, "stop")
    until(lambda: made.status == "failed")
    jobs.resume(made.id)
    until(lambda: waits(made))
    record = json.loads((tmp_path / "videos" / f"{made.id}.json").read_text())
    assert (record["status"], record["expires_at"], record["error"]) == ("queued", None, None)


def test_a_review_that_cannot_continue_on_a_full_disk_stays_as_it_was(
    make_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    jobs = make_jobs("serving.max_reviews=1")
    made = jobs.create(job(), is_reviewed=True)
    decide(made, "stop")
    until(lambda: jobs._front.reviews.num_admitted == 0)
    until(lambda: made.status == "failed")
    with monkeypatch.context() as disk:
        disk.setattr("mora_launch.serving.http.jobs.job_folder.replace_text", full)
        with pytest.raises(StorageError, match="No space left on device"):
            jobs.resume(made.id)
    jobs.resume(made.id)
    until(lambda: waits(made))


def test_requests_are_answered_while_reviews_are_measured(make_jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = make_jobs()
    made = jobs.create(job(), is_reviewed=True)
    begun, may_end = threading.Event(), threading.Event()

    def slow(_: VideoJob) -> int:
        begun.set()
        assert may_end.wait(20)
        return 0

    monkeypatch.setattr(jobs._folder, "review_nbytes", slow)
    try:
        decide(made, "stop")
        assert begun.wait(20)
        with ThreadPoolExecutor(1) as others:
            assert others.submit(jobs.get, made.id).result(5) is made
            assert others.submit(jobs.all).result(5) == [made]
    finally:
        may_end.set()


def test_a_request_does_not_wait_for_the_removal_of_expired_files(
    make_jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs("serving.keep_videos_s=0.5")
    made = jobs.create(job())
    until(lambda: made.status == "completed")
    may_end, real = threading.Event(), jobs._folder.remove

    def slow(each: VideoJob) -> None:
        assert may_end.wait(20)
        real(each)

    monkeypatch.setattr(jobs._folder, "remove", slow)
    until(lambda: time.time() > made.expires_at)
    try:
        with ThreadPoolExecutor(1) as others:
            assert others.submit(jobs.all).result(5) == []
        assert jobs.file(made).exists()
    finally:
        may_end.set()
    until(lambda: not list((tmp_path / "videos").iterdir()))


def test_requests_are_answered_while_a_review_resumes_and_only_one_resumes_it(
    make_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs()
    made = jobs.create(job(), is_reviewed=True)
    decide(made, "stop")
    until(lambda: made.status == "failed")
    begun, may_end, real = threading.Event(), threading.Event(), jobs._folder.write

    def slow(each: VideoJob) -> None:
        begun.set()
        assert may_end.wait(20)
        real(each)

    with monkeypatch.context() as disk, ThreadPoolExecutor(2) as others:
        disk.setattr(jobs._folder, "write", slow)
        try:
            resumed = others.submit(jobs.resume, made.id)
            assert begun.wait(20)
            assert others.submit(jobs.all).result(5) == [made]
            with pytest.raises(BadRequest, match="only a stopped review can be resumed; this job is queued"):
                others.submit(jobs.resume, made.id).result(5)
        finally:
            may_end.set()
        assert resumed.result(20) is made
    until(lambda: waits(made))


def test_a_review_that_is_deleted_while_it_fails_to_resume_leaves_no_files(
    make_jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs()
    made = jobs.create(job(), is_reviewed=True)
    decide(made, "stop")
    until(lambda: made.status == "failed")

    def deleted_meanwhile(each: VideoJob) -> None:
        jobs.delete(each.id)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(jobs._folder, "write", deleted_meanwhile)
    with pytest.raises(StorageError):
        jobs.resume(made.id)
    assert not list((tmp_path / "videos").iterdir())
    assert jobs._front.reviews.num_admitted == 0


def test_a_review_whose_files_are_removed_has_no_state(make_jobs: Any) -> None:
    jobs = make_jobs()
    made = jobs.create(job(), is_reviewed=True)
    decide(made, "stop")
    until(lambda: made.status == "failed")
    jobs.delete(made.id)
    assert made.review() is None


def stopped(jobs: VideoJobs, tenant: str) -> VideoJob:
    made = jobs.create(job(tenant=tenant), is_reviewed=True)
    decide(made, "stop")
    until(lambda: made.status == "failed")
    return made


def test_many_reviews_of_one_tenant_leave_places_for_another(make_jobs: Any) -> None:
    jobs = make_jobs("serving.max_reviews=4", tenants=("ann", "bob"))
    for _ in range(3):
        jobs.create(job(tenant="ann"), is_reviewed=True)
    with pytest.raises(TooBusy, match="3 reviews are in progress, the limit is 3"):
        jobs.create(job(tenant="ann"), is_reviewed=True)
    bobs = jobs.create(job(tenant="bob"), is_reviewed=True)
    until(lambda: waits(bobs))


def test_a_stopped_review_outlives_many_later_ones_of_another_tenant(make_jobs: Any) -> None:
    jobs = make_jobs("serving.max_kept_reviews=3", tenants=("ann", "bob"))
    bobs = stopped(jobs, "bob")
    anns = [stopped(jobs, "ann") for _ in range(5)]
    until(lambda: [each.id for each in jobs.all()] == [bobs.id, anns[3].id, anns[4].id])
    with pytest.raises(NotFound, match="has expired"):
        jobs.get(anns[0].id)


def test_many_finished_videos_remove_neither_stopped_reviews_nor_videos_of_others(
    make_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mora_launch.serving.http.jobs.video_jobs.MAX_NUM_KEPT_VIDEOS", 2)
    jobs = make_jobs(tenants=("ann", "bob"))
    kept = [stopped(jobs, "bob"), jobs.create(job(tenant="bob"))]
    until(lambda: kept[1].status == "completed")
    anns = []
    for _ in range(3):
        anns.append(jobs.create(job(tenant="ann")))
        until(lambda: anns[-1].status == "completed")
    assert [each.id for each in jobs.all()] == [each.id for each in [*kept, anns[2]]]
