"""A job that is killed at any kill point of a step continues to the same bytes.

Toy agents, because every death loads models again. A chain of two dies once at each point; in the long test a chain of
three dies in every role that passes the point.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mora_runtime.process.faults import happened

from benchmarks.chaos.job import HurtJob, differences, outcome
from benchmarks.chaos.points import PAIR, TOYS, SmallJob

pytestmark = pytest.mark.timeout(900)
Undisturbed = Callable[[SmallJob, int], Path]
FEW_STEPS, MANY_STEPS = 24, 70  # more than the deaths of a test need; every role passes its points anew after each


def steps(number: int) -> list[str]:
    return [f"training.num_steps={number}"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The run of an undisturbed job of this kind and number of steps, made once."""

    made: dict[tuple[str, int], Path] = {}

    def run_of(kind: SmallJob, num_steps: int) -> Path:
        key = (kind.config, num_steps)
        if key not in made:
            job = HurtJob(tmp_path_factory.mktemp("chaos") / "undisturbed", changes=steps(num_steps), kind=kind)
            assert job.wait(300) == 0, job.said
            made[key] = job.run
        return made[key]

    return run_of


@pytest.fixture
def jobs() -> Iterator[list[HurtJob]]:
    started: list[HurtJob] = []
    yield started
    for job in started:
        job.end()


@pytest.mark.parametrize(
    ("kind", "deaths", "num_steps"),
    [
        pytest.param(PAIR, PAIR.one_role_for_each_point(), FEW_STEPS, id="one role at each point"),
        pytest.param(TOYS, TOYS.pairs(), MANY_STEPS, id="every role", marks=pytest.mark.long),
    ],
)
def test_a_job_killed_at_any_kill_point_ends_with_the_same_bytes(
    undisturbed: Undisturbed,
    jobs: list[HurtJob],
    tmp_path: Path,
    kind: SmallJob,
    deaths: list[tuple[str, str]],
    num_steps: int,
) -> None:
    planned = [kind.specification(role, point) for role, point in deaths]
    job = HurtJob(tmp_path / "hurt", planned, steps(num_steps), kind)
    jobs.append(job)
    assert job.wait(850) == 0, job.said
    assert happened(job.run) == sorted(planned), "each has come true"
    assert differences(outcome(job.run), outcome(undisturbed(kind, num_steps))) == []
    assert not job.leaks()
    assert job.said.count("going on from step") > len(planned) // 2  # some die before the first checkpoint


# In the first, second and third checkpoint that an attempt writes: each ends an attempt of its own.
DISK_FAULTS = {
    "image.0:shard_written:2:enospc": "No space left on device",
    "video.0:fsynced:5:eio": "Input/output error",
    "coordinator.0:renamed:3:enospc": "No space left on device",
}


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(["video.0:fsynced:5:eio"], id="one write"),
        pytest.param([*DISK_FAULTS], id="three writes", marks=pytest.mark.long),
    ],
)
def test_a_full_disk_at_any_write_of_a_checkpoint_ends_the_job_and_leaves_the_previous_one(
    undisturbed: Undisturbed, jobs: list[HurtJob], tmp_path: Path, faults: list[str]
) -> None:
    run = tmp_path / "full"
    job = HurtJob(run, faults, steps(FEW_STEPS), PAIR)
    jobs.append(job)
    for _ in faults:
        assert job.wait(300) == 1, job.said
        job.resume()
    assert job.wait(300) == 0, job.said
    assert happened(run) == sorted(faults)
    assert all(DISK_FAULTS[fault] in job.said for fault in faults)
    assert differences(outcome(run), outcome(undisturbed(PAIR, FEW_STEPS))) == []
