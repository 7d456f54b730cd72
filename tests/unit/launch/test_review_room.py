"""Reviews on disk: their size is limited, and finding it does not stop the server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from mora_launch.serving.http.admission import TooBusy
from mora_launch.serving.http.jobs.eviction import surplus
from mora_launch.serving.http.jobs.job_folder import JobFolder
from mora_launch.serving.http.jobs.review_room import ReviewRoom
from mora_launch.serving.http.jobs.video_job import VideoJob
from mora_launch.serving.settings import ServingSettings
from mora_launch.serving.terms import Terms
from mora_launch.tasks.request import TaskRequest

LONG_AGO_S = 1_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path / "videos")


def review(folder: JobFolder, nbytes: int, *, tenant: str = "", stopped_at: int | None = None) -> VideoJob:
    """A review whose folder has not changed for long; a stopped one if there is a time."""
    request = TaskRequest("text_to_video", "a cat", 7, 8.0, None, (), strength=0.5)
    job = VideoJob(request, "mora", (16, 16), "mp4", None, terms=Terms(tenant=tenant))
    job.session = folder.open_session(job, [bytes(nbytes)])
    if stopped_at is not None:
        job.status, job.completed_at = "failed", stopped_at
    os.utime(job.session.folder, (LONG_AGO_S, LONG_AGO_S))
    return job


def test_a_review_is_measured_again_only_after_a_change(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    real = folder.review_nbytes

    def counted(job: VideoJob) -> int:
        measured.append(job.id)
        return real(job)

    monkeypatch.setattr(folder, "review_nbytes", counted)
    room = ReviewRoom(folder, ServingSettings())
    first, second = review(folder, 1000), review(folder, 2000)
    before = room.sizes([first, second])
    assert before[second.id] - before[first.id] == 1000
    assert room.sizes([first, second]) == before
    assert sorted(measured) == sorted([first.id, second.id])
    assert first.session is not None
    (first.session.folder / "candidate.npy").write_bytes(bytes(500))
    assert room.sizes([first, second])[first.id] == before[first.id] + 500
    (first.session.folder / "another.npy").write_bytes(bytes(500))  # perhaps with the same stamp
    assert room.sizes([first, second])[first.id] == before[first.id] + 1000
    assert measured.count(second.id) == 1


def test_no_job_makes_the_server_list_the_folder_of_all_jobs(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_scan, real_list = os.scandir, os.listdir

    def checked(real: Any) -> Any:
        def listing(path: Any = ".") -> Any:
            assert isinstance(path, int) or Path(path) != tmp_path / "videos", "the folder of all jobs is listed"
            return real(path)

        return listing

    job = review(folder, 10)
    folder.write(job)
    for path in (folder.file(job), folder.file(job, "thumbnail"), folder.live(job)):
        path.write_bytes(b"x")
    with monkeypatch.context() as changed:
        changed.setattr(os, "scandir", checked(real_scan))
        changed.setattr(os, "listdir", checked(real_list))
        with pytest.raises(AssertionError, match="is listed"):
            list((tmp_path / "videos").glob("*"))
        assert ReviewRoom(folder, ServingSettings()).sizes([job])[job.id] > 10
        assert folder.inputs(job) == [bytes(10)]
        folder.remove_unfinished(job)
        folder.remove(job)
    assert os.listdir(tmp_path / "videos") == []


def test_uploaded_files_of_earlier_versions_are_read_counted_and_removed(folder: JobFolder, tmp_path: Path) -> None:
    job = review(folder, 10)
    assert job.session is not None
    (job.session.folder / "input-0").unlink()
    without = folder.review_nbytes(job)
    for number in range(2):
        (tmp_path / "videos" / f"{job.id}.input-{number}").write_bytes(bytes([number]) * 100)
    assert folder.inputs(job) == [bytes(100), b"\1" * 100]
    assert folder.review_nbytes(job) == without + 200
    folder.remove(job)
    assert os.listdir(tmp_path / "videos") == []


def test_the_oldest_stopped_reviews_make_room_and_open_ones_stay(folder: JobFolder) -> None:
    room = ReviewRoom(folder, ServingSettings(max_review_nbytes=10_000))
    jobs = [review(folder, 3000, stopped_at=2), review(folder, 3000, stopped_at=1), review(folder, 3000)]
    sizes = dict.fromkeys((job.id for job in jobs), 3000)
    assert room.too_old(jobs, sizes) == []
    assert room.too_old(jobs, sizes, 2000) == [jobs[1]]
    assert room.too_old(jobs, sizes, 7000) == [jobs[1], jobs[0]]
    with pytest.raises(TooBusy, match="open reviews use 3000 bytes, the limit is 10000"):
        room.too_old(jobs, sizes, 7001)


def test_the_tenant_that_uses_the_most_makes_room(folder: JobFolder) -> None:
    room = ReviewRoom(folder, ServingSettings(max_review_nbytes=10_000), ("ann", "bob"))
    bobs = review(folder, 2000, tenant="bob", stopped_at=1)
    anns = [review(folder, 2000, tenant="ann", stopped_at=time) for time in (3, 2)]
    sizes = dict.fromkeys((job.id for job in [bobs, *anns]), 2000)
    assert room.too_old([bobs, *anns], sizes, 6000, "ann") == [anns[1]]
    assert room.too_old([bobs, *anns], sizes, 4500, "bob") == [bobs], "bob has 6500 bytes, ann 4000"


def test_stopped_reviews_beyond_the_number_are_those_of_the_tenant_with_the_most(folder: JobFolder) -> None:
    room = ReviewRoom(folder, ServingSettings(max_kept_reviews=3), ("ann", "bob"))
    bobs = review(folder, 10, tenant="bob", stopped_at=1)
    anns = [review(folder, 10, tenant="ann", stopped_at=time) for time in (2, 3, 4, 5)]
    jobs = [bobs, *anns]
    assert room.too_old(jobs, dict.fromkeys((job.id for job in jobs), 10), tenant="bob") == anns[:2]


def test_open_reviews_of_one_tenant_leave_space_for_those_of_another(folder: JobFolder) -> None:
    room = ReviewRoom(folder, ServingSettings(max_review_nbytes=8000), ("ann", "bob"))
    anns = review(folder, 5000, tenant="ann")
    sizes = {anns.id: 5000}
    assert room.too_old([anns], sizes, 1000, "ann") == []
    with pytest.raises(TooBusy, match="open reviews use 5000 bytes, the limit is 6000"):
        room.too_old([anns], sizes, 1001, "ann")
    assert room.too_old([anns], sizes, 3000, "bob") == []
    assert room.too_old([], {}, 8000, "ann") == [], "alone it may use all the space"


def test_videos_beyond_the_number_are_the_oldest_of_the_tenant_with_the_most(folder: JobFolder) -> None:
    bobs, *anns = [review(folder, 10, tenant=tenant, stopped_at=1) for tenant in ("bob", "ann", "ann", "ann")]
    jobs = [bobs, *anns]
    assert surplus(jobs, 4) == []
    assert surplus(jobs, 2) == anns[:2]
    assert surplus(jobs, 1) == [*anns[:2], bobs], "of equal ones the oldest"
