"""What a server says about itself in PONG."""

from __future__ import annotations

import time

from mora_runtime.rpc import activity as published
from mora_runtime.rpc.activity import Activity, report_step

CALLER = b"front"


def run_call(made: Activity, number: int, steps: int) -> None:
    """A call with this many steps of at least a millisecond each, and decoding in two pieces of a millisecond."""
    made.busy, made.busy_call, made.busy_since_ns = "image.generate", (CALLER, number), time.monotonic_ns()
    for step in range(steps):
        time.sleep(0.001)
        report_step(step + 1, steps)
    time.sleep(0.001)
    if steps:
        report_step(steps, steps)  # as agents do between pieces that they decode
        time.sleep(0.001)
    made.busy, made.busy_call = "", None
    made.ended(CALLER, number)


def test_the_time_of_a_call_is_split_into_steps_and_what_follows_them() -> None:
    made = Activity()
    published.publish(made)
    run_call(made, 1, steps=3)
    first = made.pong(1)
    assert first.in_steps_ns >= 3_000_000
    assert first.after_steps_ns >= 2_000_000
    assert (first.step, first.num_steps) == (0, 0)
    run_call(made, 2, steps=2)
    second = made.pong(2)
    assert second.in_steps_ns >= first.in_steps_ns + 2_000_000
    assert second.after_steps_ns >= first.after_steps_ns + 2_000_000


def test_a_call_without_steps_counts_in_neither_part() -> None:
    made = Activity()
    published.publish(made)
    run_call(made, 1, steps=0)
    assert (made.pong(1).in_steps_ns, made.pong(1).after_steps_ns) == (0, 0)


def test_bytes_are_counted_by_their_way() -> None:
    made = Activity()
    made.ways.count_inline(10)
    made.ways.count_shared(200)
    made.ways.count_shared(300)
    made.ways.count_staged(7)
    pong = made.pong(1)
    assert (pong.num_inline, pong.num_shared, pong.num_device, pong.num_staged) == (1, 2, 0, 1)
    assert (pong.inline_nbytes, pong.shared_nbytes, pong.device_nbytes, pong.staged_nbytes) == (10, 500, 0, 7)
