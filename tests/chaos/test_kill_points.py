"""Every kill point of a step, in every role that passes it: the job goes on by itself to the same bytes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mora_runtime.process.faults import happened

from benchmarks.chaos.job import HurtJob, differences, outcome
from benchmarks.chaos.points import pairs, specification

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("chaos") / "undisturbed"
    job = HurtJob(run)
    assert job.wait(300) == 0, job.said
    return run


@pytest.fixture
def jobs() -> Iterator[list[HurtJob]]:
    started: list[HurtJob] = []
    yield started
    for job in started:
        job.end()


def test_killed_at_every_point_in_every_role_a_job_comes_to_the_same_bytes(
    undisturbed: Path, jobs: list[HurtJob], tmp_path: Path
) -> None:
    planned = [specification(role, point) for role, point in pairs()]
    job = HurtJob(tmp_path / "hurt", planned)
    jobs.append(job)
    assert job.wait(850) == 0, job.said
    assert happened(job.run) == sorted(planned), "each has come true"
    assert differences(outcome(job.run), outcome(undisturbed)) == []
    assert not job.leaks()
    assert job.said.count("going on from step") > 20


def test_a_full_disk_at_any_write_of_a_checkpoint_ends_the_job_with_the_one_before_intact(
    undisturbed: Path, jobs: list[HurtJob], tmp_path: Path
) -> None:
    run = tmp_path / "full"
    # in the first, second and third checkpoint that an attempt writes: each ends an attempt of its own
    faults = ["image.0:shard_written:2:enospc", "video.0:fsynced:5:eio", "coordinator.0:renamed:3:enospc"]
    job = HurtJob(run, faults)
    jobs.append(job)
    for _ in faults:
        assert job.wait(300) == 1, job.said
        job.resume()
    assert job.wait(300) == 0, job.said
    assert len(happened(run)) == len(faults)
    assert job.said.count("No space left on device") >= 2
    assert "Input/output error" in job.said
    assert differences(outcome(run), outcome(undisturbed)) == []
