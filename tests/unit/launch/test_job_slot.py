"""Slots of running video jobs: counted, released after an error, and refused to a cancelled job."""

import threading
from contextlib import ExitStack, suppress

import pytest
from mora_launch.serving.http.jobs.job_slot import job_slot
from mora_runtime.errors import Cancelled


def is_free(slots: threading.Semaphore) -> bool:
    if not slots.acquire(blocking=False):
        return False
    slots.release()
    return True


def test_a_slot_is_occupied_inside_and_free_again_after_an_error() -> None:
    slots = threading.Semaphore(1)
    with suppress(RuntimeError), job_slot(slots, lambda: False):
        assert not is_free(slots)
        raise RuntimeError
    assert is_free(slots)


def test_a_job_that_is_cancelled_while_it_waits_gets_no_slot() -> None:
    slots = threading.Semaphore(1)
    with job_slot(slots, lambda: False):
        with pytest.raises(Cancelled, match="the task was cancelled"), job_slot(slots, lambda: True):
            pytest.fail("occupied a slot that was not free")
        assert not is_free(slots)
    assert is_free(slots)


def test_a_free_slot_is_given_without_a_check_for_cancellation() -> None:
    with job_slot(threading.Semaphore(1), lambda: pytest.fail("asked though a slot was free")):
        pass


def test_a_slot_that_was_released_early_is_released_only_once() -> None:
    slots = threading.Semaphore(1)
    with ExitStack() as slot:
        slot.enter_context(job_slot(slots, lambda: False))
        slot.close()
        assert is_free(slots)
    assert slots.acquire(blocking=False)
    assert not is_free(slots)  # one slot, not two
