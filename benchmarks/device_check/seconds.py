"""Times of work on a device, with the device idle before and after."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done its work; the CPU works at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_s(device: torch.device, work: Callable[[], object], *, rounds: int, warm_up: int = 1) -> float:
    """Median seconds of some work."""
    taken = []
    for turn in range(warm_up + rounds):
        synchronize(device)
        began_s = time.perf_counter()
        work()
        synchronize(device)
        if turn >= warm_up:
            taken.append(time.perf_counter() - began_s)
    return statistics.median(taken)


class Stages:
    """Seconds of the stages of a call, added up by name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        synchronize(self._device)
        began_s = time.perf_counter()
        try:
            yield
        finally:
            synchronize(self._device)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began_s

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Time every call of a method of this object from now on."""
        original = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return original(*arguments, **options)

        object.__setattr__(owner, method, timed)

    def rounded(self) -> dict[str, float]:
        """The seconds so far, and count again from zero."""
        taken = {name: round(value, 4) for name, value in self.seconds.items()}
        self.seconds = {}
        return taken
