"""Requests are limited by number and by cost, and a part of both is reserved for each tenant."""

from __future__ import annotations

import contextlib

import pytest
from mora_launch.serving.http import admission as module
from mora_launch.serving.http.admission import Admission, TooBusy
from mora_launch.serving.throughput import Throughput
from mora_launch.tasks.errors import BadRequest


def test_the_number_is_limited_and_a_place_is_free_again_after_an_answer_or_an_error() -> None:
    admission = Admission(2)
    with (
        admission.place("", 0.0),
        admission.place("", 0.0),
        pytest.raises(TooBusy, match=r"2 requests are .* is 2; retry"),
    ):
        admission.enter()
    with contextlib.suppress(ZeroDivisionError), admission.place("", 0.0):
        raise ZeroDivisionError
    assert admission.num_admitted == 0


def test_the_cost_is_limited_whatever_the_number() -> None:
    admission = Admission(100, max_cost=10.0)
    admission.enter(cost=6.0)
    admission.enter(cost=4.0)
    with pytest.raises(
        TooBusy, match=r"requests of 10 megapixel-steps are in progress, this one has 0\.5, the limit is 10"
    ):
        admission.enter(cost=0.5)
    admission.leave(cost=6.0)
    admission.enter(cost=0.5)


def test_a_request_that_can_never_fit_is_refused_for_good_with_the_limit_and_its_field() -> None:
    admission = Admission(100, max_cost=10.0)
    admission.check_fits(10.0, "seconds")
    with pytest.raises(BadRequest, match=r"^seconds: the request costs 10.5 megapixel-steps .* at most 10;") as refused:
        admission.check_fits(10.5, "seconds")
    assert refused.value.field == "seconds"


def test_a_tenant_with_many_requests_leaves_room_for_the_others() -> None:
    admission = Admission(8, max_cost=80.0, tenants=("ann", "bob"))
    for _ in range(6):
        admission.enter("ann", 1.0)
    with pytest.raises(TooBusy, match="6 requests are in progress, the limit is 6"):
        admission.enter("ann", 1.0)
    for _ in range(2):
        admission.enter("bob", 1.0)
    with pytest.raises(TooBusy, match="8 requests are in progress, the limit is 8"):
        admission.enter("bob", 1.0)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_server_with_few_places_works_whatever_the_number_of_tenants(limit: int) -> None:
    admission = Admission(limit, tenants=[f"tenant {number}" for number in range(100)])
    for number in range(2 * limit):
        with admission.place(f"tenant {number}", 0.0):
            assert admission.num_admitted == 1


def test_room_is_checked_for_one_tenant_without_taking_it() -> None:
    admission = Admission(4, tenants=("ann", "bob"))
    for _ in range(3):
        admission.check_room("ann")
        admission.enter("ann")
    with pytest.raises(TooBusy, match="3 requests are in progress, the limit is 3"):
        admission.check_room("ann")
    admission.check_room("bob")
    assert admission.num_admitted == 3


def test_a_part_of_the_cost_is_reserved_too_and_a_request_must_fit_into_the_rest() -> None:
    admission = Admission(100, max_cost=80.0, tenants=("ann", "bob"))
    admission.check_fits(60.0, "seconds")
    with pytest.raises(BadRequest, match="at most 60"):
        admission.check_fits(61.0, "seconds")
    admission.enter("ann", 60.0)
    with pytest.raises(TooBusy, match="this one has 1, the limit is 60"):
        admission.enter("ann", 1.0)
    admission.enter("bob", 20.0)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


def test_the_time_to_retry_comes_from_what_the_servers_did(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    admission = Admission(100, max_cost=100.0)
    admission.enter(cost=50.0)
    admission.enter(cost=50.0)
    with pytest.raises(TooBusy) as first:
        admission.enter(cost=30.0)
    clock.now_s += 25.0  # two megapixel-steps a second
    admission.leave(cost=50.0)
    clock.now_s += 0.0
    admission.enter(cost=50.0)
    with pytest.raises(TooBusy) as second:
        admission.enter(cost=80.0)
    assert (first.value.retry_after_s, second.value.retry_after_s) == (10, 40)


def test_time_without_work_and_work_that_was_taken_back_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    throughput = Throughput()
    throughput.watch(is_busy=True, now_s=0.0)
    throughput.did(10.0)
    throughput.watch(is_busy=False, now_s=5.0)
    throughput.watch(is_busy=True, now_s=500.0)
    throughput.watch(is_busy=True, now_s=505.0)
    assert throughput.time_for(10.0) == pytest.approx(10.0)
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    admission = Admission(1, max_cost=10.0)
    admission.enter(cost=10.0)
    clock.now_s += 1.0
    admission.leave(cost=10.0, is_done=False)
    admission.enter(cost=10.0)
    with pytest.raises(TooBusy) as refused:
        admission.enter(cost=10.0)
    assert refused.value.retry_after_s == 10, "nothing was done, so nothing is known"


def test_recent_work_counts_more_than_old_work() -> None:
    throughput = Throughput()
    throughput.watch(is_busy=True, now_s=0.0)
    for second in range(1, 1001):
        throughput.did(1.0 if second <= 500 else 4.0)
        throughput.watch(is_busy=True, now_s=float(second))
    time_for_4 = throughput.time_for(4.0)
    assert time_for_4 is not None
    assert time_for_4 < 1.05
