"""The queue gathers compatible work in batches."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from mora_launch.serving.work_queue import Work, WorkQueue

IMAGE = "text_to_image"


def work(seed: int, **shared: int) -> Work:
    return Work(IMAGE, {"prompts": "a circle", "seeds": seed}, shared)


def seeds(works: list[Work]) -> list[int]:
    return [each.sample["seeds"] for each in works]


def test_work_with_other_shared_values_is_in_another_batch() -> None:
    queue = WorkQueue({IMAGE: 4})
    for seed in range(6):
        queue.put(work(seed, height=64 if seed % 2 else 32))
    assert seeds(queue.take([IMAGE], timeout_s=0.0)) == [0, 2, 4]
    assert seeds(queue.take([IMAGE], timeout_s=0.0)) == [1, 3, 5]
    assert queue.take([IMAGE], timeout_s=0.0) == []


def test_the_first_of_a_batch_waits_until_it_is_full() -> None:
    queue = WorkQueue({IMAGE: 3}, gather_s=60.0)
    queue.expect(3)
    queue.put(work(0))
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(queue.take, [IMAGE], timeout_s=60.0)
        queue.put(work(1))
        queue.put(work(2))
        assert seeds(taken.result(30.0)) == [0, 1, 2]


def test_a_batch_waits_no_longer_once_nothing_is_on_its_way() -> None:
    queue = WorkQueue({IMAGE: 3}, gather_s=60.0)
    queue.expect(2)
    queue.put(work(0))
    queue.expect(-1)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(queue.take, [IMAGE], timeout_s=60.0)
        queue.expect(-1)  # that request was refused
        assert seeds(taken.result(30.0)) == [0]


@pytest.mark.parametrize(("limit", "gather_s", "num_expected"), [(1, 60.0, 1), (4, 0.01, 1), (4, 60.0, 0)])
def test_work_does_not_wait_for_others_that_cannot_or_do_not_arrive(
    limit: int, gather_s: float, num_expected: int
) -> None:
    queue = WorkQueue({IMAGE: limit}, gather_s)
    queue.expect(num_expected)
    queue.put(work(0))
    with ThreadPoolExecutor(1) as pool:
        assert seeds(pool.submit(queue.take, [IMAGE], timeout_s=1.0).result(30.0)) == [0]


def test_only_a_full_batch_is_taken_without_waiting() -> None:
    queue = WorkQueue({IMAGE: 2}, gather_s=60.0)
    queue.put(work(0))
    assert queue.take([IMAGE], timeout_s=0.0, only_full=True) == []
    queue.put(work(1))
    assert seeds(queue.take([IMAGE], timeout_s=0.0, only_full=True)) == [0, 1]
