"""How long the micro-batches of a step take at least: the stages' own compute times, messages for nothing."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def critical_path_s(compute_s: Sequence[Mapping[str, float]], max_in_flight: int) -> float:
    """Seconds of the schedule of `mora_trainer.chain.RemoteChain` on two servers that never wait for a message.

    Args:
        compute_s: by micro-batch, the times of `image_forward`, `video_forward`, `video_backward`, `image_backward`.
        max_in_flight: micro-batches between their first forward and their last backward.
    """
    free_s = {"image": 0.0, "video": 0.0}  # when each server has done all that was submitted to it
    ended: list[tuple[float, int, str]] = []
    num_begun = 0
    now_s = 0.0

    def submit(server: str, what: str, number: int, spent_s: float) -> None:
        free_s[server] = max(free_s[server], now_s) + spent_s
        heapq.heappush(ended, (free_s[server], number, what))

    while num_begun < min(max_in_flight, len(compute_s)):
        submit("image", "forward", num_begun, compute_s[num_begun]["image_forward"])
        num_begun += 1
    while ended:
        now_s, number, what = heapq.heappop(ended)
        times = compute_s[number]
        if what == "forward":
            submit("video", "loss_done", number, times["video_forward"] + times["video_backward"])
        elif what == "loss_done":
            submit("image", "backward", number, times["image_backward"])
        elif num_begun < len(compute_s):
            submit("image", "forward", num_begun, compute_s[num_begun]["image_forward"])
            num_begun += 1
    return now_s
