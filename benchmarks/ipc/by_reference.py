"""Passes a large tensor from one server to another through this process, which never maps it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from mora_runtime import TensorRef

from benchmarks.ipc.contestant import DEADLINE_S, Contestant, Turn, WrongAnswer, take_turn
from benchmarks.ipc.ours import AGENT, Echo, OurServers
from benchmarks.ipc.plan import SMALL_NBYTES

_HANDOVERS_A_ROUND = 20


class HandOver(Contestant):
    """Server A returns a tensor that it stores, and server B returns the shape of it."""

    name = "by_reference"

    def __init__(self, opened: OurServers, nbytes: int) -> None:
        self._opened = opened
        self._nbytes = nbytes
        self.produce_us: list[float] = []
        self.hand_over_us: list[float] = []

    def start(self) -> None:
        self._keep(self._nbytes)

    def _keep(self, nbytes: int) -> None:
        self._opened.client.call(AGENT, "keep", {"nbytes": nbytes}, deadline_s=DEADLINE_S)

    def _produce(self) -> TensorRef:
        reply = self._opened.client.call(AGENT, "kept", {}, deadline_s=DEADLINE_S)
        reference: TensorRef = reply.values["value"]
        return reference

    def _hand_over(self, method: str, reference: TensorRef) -> Any:
        return self._opened.other.call(AGENT, method, {"x": reference}, deadline_s=DEADLINE_S).values["value"]

    def echo(self, x: torch.Tensor) -> list[int]:
        started_ns = time.perf_counter_ns()
        reference = self._produce()
        produced_ns = time.perf_counter_ns()
        shape: list[int] = self._hand_over("shape", reference)
        self.produce_us.append((produced_ns - started_ns) / 1e3)
        self.hand_over_us.append((time.perf_counter_ns() - produced_ns) / 1e3)
        return shape

    def check(self, x: torch.Tensor, y: list[int]) -> None:
        reference = self._produce()
        expected, got = float(reference.tensor().sum(dtype=torch.float64)), self._hand_over("total", reference)
        if y != [self._nbytes // 4] or got != expected or not got:
            raise WrongAnswer(f"{self.name}: expected shape [{self._nbytes // 4}] and sum {expected}, got {y}, {got}")

    def close(self) -> None:
        self._keep(4)  # frees the large slot


def measure_by_reference(
    opened: OurServers, nbytes: int, num_rounds: int, progress: Callable[[], None]
) -> dict[str, Any]:
    """Key `by_reference` of the report; small echoes are measured in the same rounds."""
    path, small = HandOver(opened, nbytes), Echo("small", opened.client, "add_one")
    path.start()
    times_us: dict[str, list[float]] = {path.name: [], small.name: []}
    for number in range(num_rounds):
        for contestant in (path, small) if number % 2 else (small, path):
            times_us[contestant.name] += take_turn(contestant, Turn(SMALL_NBYTES, _HANDOVERS_A_ROUND, 1e9, number))
            progress()
    path.close()
    us, small_us = statistics.median(times_us[path.name]), statistics.median(times_us[small.name])
    return {
        "bytes": nbytes,
        "us": us,
        "produce_us": statistics.median(path.produce_us),
        "hand_over_us": statistics.median(path.hand_over_us),
        "small_us": small_us,
        "ratio_to_small": us / small_us,
    }
