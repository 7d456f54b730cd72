"""A job of three stages that is killed at any kill point of a step continues to the same bytes.

Long: in every role that passes the point. Toy agents, because every death loads models again.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mora_runtime.process.faults import happened

from benchmarks.chaos.job import HurtJob, differences, outcome
from benchmarks.chaos.points import TOYS

pytestmark = pytest.mark.timeout(900)
FEW_STEPS, MANY_STEPS = 16, 70  # more than the deaths of a test need; every role passes its points anew after each


def steps(number: int) -> list[str]:
    return [f"training.num_steps={number}"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The run of an undisturbed job of this many steps, made once."""

    @functools.cache
    def run_of(num_steps: int) -> Path:
        run = tmp_path_factory.mktemp("chaos") / "undisturbed"
        job = HurtJob(run, changes=steps(num_steps), kind=TOYS)
        assert job.wait(300) == 0, job.said
        return run

    return run_of


@pytest.fixture
def jobs() -> Iterator[list[HurtJob]]:
    started: list[HurtJob] = []
    yield started
    for job in started:
        job.end()


@pytest.mark.parametrize(
    ("deaths", "num_steps"),
    [
        pytest.param(TOYS.one_role_for_each_point(), FEW_STEPS, id="one role at each point"),
        pytest.param(TOYS.pairs(), MANY_STEPS, id="every role", marks=pytest.mark.long),
    ],
)
def test_a_job_killed_at_any_kill_point_ends_with_the_same_bytes(
    undisturbed: Callable[[int], Path],
    jobs: list[HurtJob],
    tmp_path: Path,
    deaths: list[tuple[str, str]],
    num_steps: int,
) -> None:
    planned = [TOYS.specification(role, point) for role, point in deaths]
    job = HurtJob(tmp_path / "hurt", planned, steps(num_steps), TOYS)
    jobs.append(job)
    assert job.wait(850) == 0, job.said
    assert happened(job.run) == sorted(planned), "each has come true"
    assert differences(outcome(job.run), outcome(undisturbed(num_steps))) == []
    assert not job.leaks()
    assert job.said.count("going on from step") > len(planned) // 2  # some die before the first checkpoint


# In the first, second and third checkpoint that an attempt writes: each ends an attempt of its own.
DISK_FAULTS = {
    "first.0:shard_written:2:enospc": "No space left on device",
    "third.0:fsynced:5:eio": "Input/output error",
    "coordinator.0:renamed:3:enospc": "No space left on device",
}


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(["third.0:fsynced:5:eio"], id="one write"),
        pytest.param([*DISK_FAULTS], id="three writes", marks=pytest.mark.long),
    ],
)
def test_a_full_disk_at_any_write_of_a_checkpoint_ends_the_job_and_leaves_the_previous_one(
    undisturbed: Callable[[int], Path], jobs: list[HurtJob], tmp_path: Path, faults: list[str]
) -> None:
    run = tmp_path / "full"
    job = HurtJob(run, faults, steps(FEW_STEPS), TOYS)
    jobs.append(job)
    for _ in faults:
        assert job.wait(300) == 1, job.said
        job.resume()
    assert job.wait(300) == 0, job.said
    assert happened(run) == sorted(faults)
    assert all(DISK_FAULTS[fault] in job.said for fault in faults)
    assert differences(outcome(run), outcome(undisturbed(FEW_STEPS))) == []
