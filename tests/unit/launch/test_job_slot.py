"""Slots of running video jobs: counted, fair among tenants, released after an error, refused to a cancelled job."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress

import pytest
from mora_launch.serving.http.jobs.job_slot import JobSlots
from mora_launch.serving.terms import Terms
from mora_runtime.errors import Cancelled

ANN = Terms(tenant="ann")


def never() -> bool:
    return False


def is_free(slots: JobSlots) -> bool:
    with suppress(Cancelled), slots.occupied(ANN, 0.0, lambda: True):
        return True
    return False


def test_a_slot_is_occupied_inside_and_free_again_after_an_error() -> None:
    slots = JobSlots(1)
    with suppress(RuntimeError), slots.occupied(ANN, 1.0, never):
        assert not is_free(slots)
        raise RuntimeError
    assert is_free(slots)


def test_a_job_that_is_cancelled_while_it_waits_gets_no_slot() -> None:
    slots = JobSlots(1)
    with slots.occupied(ANN, 1.0, never):
        with pytest.raises(Cancelled, match="the task was cancelled"), slots.occupied(ANN, 1.0, lambda: True):
            pytest.fail("occupied a slot that was not free")
        assert not is_free(slots)
    assert is_free(slots)


def test_a_free_slot_is_given_without_a_check_for_cancellation() -> None:
    with JobSlots(1).occupied(ANN, 1.0, lambda: pytest.fail("asked though a slot was free")):
        pass


def test_a_slot_that_was_released_early_is_released_only_once() -> None:
    slots = JobSlots(1)
    with ExitStack() as slot:
        slot.enter_context(slots.occupied(ANN, 1.0, never))
        slot.close()
        assert is_free(slots)
    with slots.occupied(ANN, 1.0, never):
        assert not is_free(slots), "one slot, not two"


def test_slots_go_to_tenants_in_turn_and_within_one_by_priority() -> None:
    slots = JobSlots(1)
    order: list[str] = []
    jobs = [("ann", 0), ("ann", 0), ("ann", -1), ("bob", 0)]

    def run(tenant: str, priority: int) -> None:
        with slots.occupied(Terms(tenant=tenant, priority=priority), 1.0, never):
            order.append(f"{tenant} {priority}")

    threads = [threading.Thread(target=run, args=job) for job in jobs]
    with slots.occupied(ANN, 1.0, never):
        for number, thread in enumerate(threads, 1):
            thread.start()
            until_waiting(slots, number)
    for thread in threads:
        thread.join(30.0)
    assert order == ["bob 0", "ann -1", "ann 0", "ann 0"]


def until_waiting(slots: JobSlots, number: int) -> None:
    deadline = time.monotonic() + 30
    while len(slots._waiting) < number:
        assert time.monotonic() < deadline
        time.sleep(0.005)
