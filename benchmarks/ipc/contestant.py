"""The interface of every contestant of the echo benchmark: it gets y = x + 1 from another process."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

DEADLINE_S = 120.0  # for one step of any contestant: start, echo, close


class WrongAnswer(Exception):
    """A contestant's answer is not x + 1, so its times mean nothing."""


class Contestant(ABC):
    """One way to get y = x + 1 from another process.

    One thread calls `start`; in every turn `prepare`, `expect`, that many times `echo`, then `finish`; at last `close`.
    """

    name: str
    note: str | None = None  # what readers of its figures have to know
    max_nbytes: int | None = None  # the largest x that it can carry; None if it can carry all sizes of this benchmark

    def start(self) -> None:  # noqa: B027 - many have nothing to start
        """Start all processes; after it returns, the next echo is answered."""

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Prepare for echoes of x, untimed; returns the argument of `echo`."""
        return x

    def expect(self, count: int) -> None:  # noqa: B027 - few need the number
        """Announce that exactly `count` echoes follow."""

    @abstractmethod
    def echo(self, x: torch.Tensor) -> Any:
        """Return y as the caller sees it; it may become invalid with the next echo."""

    def check(self, x: torch.Tensor, y: Any) -> None:
        """Compare every value of y with x + 1.

        Raises:
            WrongAnswer: a value differs.
        """
        if not torch.equal(torch.as_tensor(y), x + 1):
            raise WrongAnswer(f"{self.name}: expected y = x + 1 for {x.nbytes} bytes, got other values")

    def finish(self) -> None:  # noqa: B027 - many have nothing to release
        """Release what the turn has used, untimed."""

    def close(self) -> None:  # noqa: B027 - many have nothing to close
        """End everything that `start` started."""


@dataclass(frozen=True)
class Turn:
    """The work of a contestant in one turn of a round.

    Args:
        nbytes: size of x and of y.
        count: largest number of timed echoes.
        budget_s: fewer echoes if `count` of them would take longer than this; at least one.
        seed: determines the values of x, so that an answer to an older x is recognised as wrong.
    """

    nbytes: int
    count: int
    budget_s: float
    seed: int


def take_turn(contestant: Contestant, turn: Turn) -> list[float]:
    """Run one echo that warms up and is checked, then the timed ones. Returns microseconds of each.

    The timed span begins with x ready and ends when y has arrived and is dropped, because every message also has to
    free the memory of its answer.
    """
    values = request(turn)
    try:
        x = contestant.prepare(values)
        contestant.expect(1)
        started_s = time.perf_counter()
        y = contestant.echo(x)
        took_s = time.perf_counter() - started_s
        contestant.check(values, y)
        del y
        count = max(1, min(turn.count, int(turn.budget_s / took_s)))
        contestant.expect(count)
        return [_timed(contestant, x) for _ in range(count)]
    finally:
        contestant.finish()


def request(turn: Turn) -> torch.Tensor:
    """Make the x of a turn: float32, in ordinary memory that has been touched."""
    ramp = torch.arange(turn.nbytes // 4, dtype=torch.float32)
    return ramp.remainder_(4093).add_(turn.seed % 1000)


def _timed(contestant: Contestant, x: torch.Tensor) -> float:
    started_ns = time.perf_counter_ns()
    contestant.echo(x)
    return (time.perf_counter_ns() - started_ns) / 1e3
