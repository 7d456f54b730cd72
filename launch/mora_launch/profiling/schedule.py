"""The least time for the micro-batches of a step: compute times of the stages, with messages at no cost."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class MicroBatchTimes(NamedTuple):
    """Compute times of one micro-batch in each server."""

    image_forward_s: float
    video_forward_s: float
    video_backward_s: float
    image_backward_s: float


def critical_path_s(batches: Sequence[MicroBatchTimes], max_in_flight: int) -> float:
    """Return the seconds of the schedule of `mora_trainer.chain.RemoteChain` if no server waits for messages.

    Args:
        batches: compute times of each micro-batch, in order.
        max_in_flight: most micro-batches that are between their first forward and last backward.
    """
    free_s = {"image": 0.0, "video": 0.0}  # when each server has finished all submitted work
    ended: list[tuple[float, int, str]] = []
    num_begun = 0
    now_s = 0.0

    def submit(server: str, what: str, number: int, spent_s: float) -> None:
        free_s[server] = max(free_s[server], now_s) + spent_s
        heapq.heappush(ended, (free_s[server], number, what))

    while num_begun < min(max_in_flight, len(batches)):
        submit("image", "forward", num_begun, batches[num_begun].image_forward_s)
        num_begun += 1
    while ended:
        now_s, number, what = heapq.heappop(ended)
        times = batches[number]
        if what == "forward":
            submit("video", "loss_done", number, times.video_forward_s + times.video_backward_s)
        elif what == "loss_done":
            submit("image", "backward", number, times.image_backward_s)
        elif num_begun < len(batches):
            submit("image", "forward", num_begun, batches[num_begun].image_forward_s)
            num_begun += 1
    return now_s
