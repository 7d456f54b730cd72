"""The least time for the micro-batches of a step: compute times of the stages, with messages at no cost."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class StageSeconds(NamedTuple):
    """Compute times of one micro-batch in one stage.

    The last stage runs both in one call. A stage has no backward if neither it nor a stage before it trains.
    """

    forward_s: float
    backward_s: float | None


MicroBatchTimes = Sequence[StageSeconds]  # of one micro-batch, in the order of the chain


def critical_path_s(batches: Sequence[MicroBatchTimes], max_in_flight: int) -> float:
    """Return the seconds of the schedule of the trainer's `RemoteChain` if no server waits for messages.

    Each stage has a server, which runs its calls in the order in which they were submitted. A call is submitted as soon
    as its inputs are ready. Of calls that end at the same time, the one nearest to the end of its micro-batch is
    answered first.

    Args:
        batches: compute times of each micro-batch, in order.
        max_in_flight: most micro-batches that are between their first forward and last backward.
    """
    calls = [_calls(times) for times in batches]
    free_s = [0.0] * max((len(times) for times in batches), default=0)  # when each server has finished submitted work
    ended: list[tuple[float, int, int]] = []
    num_begun = 0
    now_s = 0.0

    def submit(number: int, place: int) -> None:
        stage, spent_s = calls[number][place]
        free_s[stage] = max(free_s[stage], now_s) + spent_s
        heapq.heappush(ended, (free_s[stage], -place, number))

    while num_begun < min(max_in_flight, len(calls)):
        submit(num_begun, 0)
        num_begun += 1
    while ended:
        now_s, minus_place, number = heapq.heappop(ended)
        if 1 - minus_place < len(calls[number]):
            submit(number, 1 - minus_place)
        elif num_begun < len(calls):
            submit(num_begun, 0)
            num_begun += 1
    return now_s


def _calls(times: MicroBatchTimes) -> list[tuple[int, float]]:
    """Return stage and seconds of each call of a micro-batch, in the order in which each needs the one before it."""
    last = len(times) - 1
    forwards = [(stage, each.forward_s) for stage, each in enumerate(times[:last])]
    backwards = [(stage, each.backward_s) for stage, each in enumerate(times[:last]) if each.backward_s is not None]
    return [*forwards, (last, times[last].forward_s + (times[last].backward_s or 0.0)), *reversed(backwards)]
