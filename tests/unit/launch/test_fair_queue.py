"""Tenants share the servers by cost, adapters share the batches, and priorities order the work of one tenant."""

from __future__ import annotations

import pytest
from mora_launch.serving.fair_share import FairShare
from mora_launch.serving.terms import LoraChoice, Terms
from mora_launch.serving.work_queue import Work, WorkQueue

IMAGE = "text_to_image"


def work(name: str, tenant: str = "ann", *, cost: float = 1.0, **terms: object) -> Work:
    asked = Terms.model_validate({"tenant": tenant, **terms})
    return Work(IMAGE, {"prompts": name, "seeds": 0}, {}, terms=asked, lane="image", cost=cost)


def take(queue: WorkQueue) -> list[str]:
    return [each.sample["prompts"] for each in queue.take([IMAGE], timeout_s=0.0)]


def take_all(queue: WorkQueue) -> list[str]:
    return [name for batch in iter(lambda: take(queue), []) for name in batch]


def test_one_picture_is_not_delayed_by_a_thousand_of_another_tenant() -> None:
    queue = WorkQueue({IMAGE: 4})
    for number in range(1000):
        queue.put(work(f"ann {number}", "ann"))
    in_progress = take(queue)
    queue.put(work("bob", "bob"))
    assert in_progress == ["ann 0", "ann 1", "ann 2", "ann 3"]
    assert take(queue)[0] == "bob"
    assert take(queue) == ["ann 7", "ann 8", "ann 9", "ann 10"], "the batch of bob was filled with the next of ann"


def test_tenants_get_the_same_cost_and_not_the_same_number() -> None:
    queue = WorkQueue({})
    for number in range(8):
        queue.put(work(f"large {number}", "ann", cost=4.0))
    for number in range(32):
        queue.put(work(f"small {number}", "bob", cost=1.0))
    first = take_all(queue)[:20]
    assert sum(name.startswith("large") for name in first) == 4
    assert sum(name.startswith("small") for name in first) == 16


def test_a_tenant_saves_up_no_time_in_which_it_asked_for_nothing() -> None:
    queue = WorkQueue({})
    queue.put(work("first of bob", "bob"))
    for number in range(100):
        queue.put(work(f"ann {number}", "ann"))
    for _ in range(50):
        take(queue)
    for number in range(20):
        queue.put(work(f"bob {number}", "bob"))
    next_ones = [take(queue)[0] for _ in range(20)]
    assert sum(name.startswith("bob") for name in next_ones) in (10, 11)


def test_work_of_a_dead_server_returns_to_its_place_and_costs_its_tenant_once() -> None:
    queue = WorkQueue({})
    for number in range(4):
        queue.put(work(f"ann {number}", "ann"))
        queue.put(work(f"bob {number}", "bob"))
    queue.put_back(queue.take([IMAGE], timeout_s=0.0))
    assert take_all(queue) == [f"{tenant} {number}" for number in range(4) for tenant in ("ann", "bob")]


def test_a_smaller_priority_is_earlier_within_its_tenant_only() -> None:
    queue = WorkQueue({})
    queue.put(work("ann late", priority=5))
    queue.put(work("ann", priority=0))
    queue.put(work("ann urgent", priority=-5))
    queue.put(work("bob", "bob", priority=900))
    assert take_all(queue) == ["ann urgent", "bob", "ann", "ann late"]


def test_a_batch_has_one_adapter_with_one_scale() -> None:
    queue = WorkQueue({IMAGE: 4})
    choices = [None, LoraChoice(name="ink"), LoraChoice(name="oil"), LoraChoice(name="ink", scale=0.5)]
    for number in range(8):
        queue.put(work(f"{number}", lora=choices[number % 4]))
    batches = [take(queue) for _ in range(5)]
    assert batches == [["0", "4"], ["1", "5"], ["2", "6"], ["3", "7"], []]


def test_an_adapter_in_constant_demand_does_not_starve_another() -> None:
    queue = WorkQueue({IMAGE: 2})
    ink, oil = LoraChoice(name="ink"), LoraChoice(name="oil")
    for number in range(2):
        queue.put(work(f"ink {number}", lora=ink))
    queue.put(work("oil", lora=oil))
    taken: list[list[str]] = []
    for number in range(4):  # two more come before each batch
        queue.put(work(f"ink {2 + 2 * number}", lora=ink))
        queue.put(work(f"ink {3 + 2 * number}", lora=ink))
        taken.append(take(queue))
    assert taken[1] == ["oil"]


def test_with_several_names_no_batch_is_sent_ahead_of_what_others_may_ask_for() -> None:
    queue = WorkQueue({IMAGE: 2})
    for number in range(4):
        queue.put(work(f"{number}"))
    assert len(queue.take([IMAGE], timeout_s=0.0, only_full=True)) == 2
    queue.sends_ahead = False
    assert queue.take([IMAGE], timeout_s=0.0, only_full=True) == []
    assert take(queue) == ["2", "3"]


def test_cancelled_work_leaves_the_queue_and_costs_its_tenant_nothing() -> None:
    queue = WorkQueue({})
    cancelled = [work(f"ann {number}", "ann", cost=100.0) for number in range(3)]
    for each in cancelled:
        queue.put(each)
    queue.put(work("ann", "ann"))
    queue.put(work("bob", "bob"))
    for each in cancelled:
        each.cancel()
    assert take_all(queue) == ["ann", "bob"]
    assert len(queue) == 0


@pytest.mark.parametrize("cost", [0.25, 3.0])
def test_whoever_was_served_waits_for_those_who_were_not(cost: float) -> None:
    share = FairShare()
    for tenant in ("ann", "bob"):
        share.arrive(tenant)
    share.charge("ann", cost)
    share.arrive("cal")
    assert share.clock("bob") < share.clock("ann")
    assert share.clock("cal") < share.clock("ann")
