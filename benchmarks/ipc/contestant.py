"""What every contestant of the echo benchmark is: something that gets y = x + 1 made from x."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

DEADLINE_S = 120.0  # of one step of any contestant: start, echo, close


class WrongAnswer(Exception):
    """A contestant's answer is not x + 1; what it was timed at means nothing."""


class Contestant(ABC):
    """One way to get y = x + 1.

    Used by one thread: `start`; in every turn `prepare`, then `expect` and that many `echo`s, then `finish`; `close`.
    """

    name: str
    note: str | None = None  # what a reader of its figures has to know
    max_nbytes: int | None = None  # the largest x that it can carry, None for any of this benchmark

    def start(self) -> None:  # noqa: B027 - many have nothing to start
        """Bring everything up; when it returns, the next echo is answered."""

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Get ready for echoes of x, untimed; returns what `echo` shall be given for x."""
        return x

    def expect(self, count: int) -> None:  # noqa: B027 - few need to know
        """Exactly `count` echoes come now."""

    @abstractmethod
    def echo(self, x: torch.Tensor) -> Any:
        """y as the caller sees it; it need not stay valid past the next echo."""

    def check(self, x: torch.Tensor, y: Any) -> None:
        """Compare every value.

        Raises:
            WrongAnswer: the contestant does not do what it is timed for.
        """
        if not torch.equal(torch.as_tensor(y), x + 1):
            raise WrongAnswer(f"{self.name}: expected y = x + 1 for {x.nbytes} bytes, got other values")

    def finish(self) -> None:  # noqa: B027 - many hold nothing between turns
        """Let go of what the turn held, untimed."""

    def close(self) -> None:  # noqa: B027 - many have nothing to close
        """End everything that `start` started."""


@dataclass(frozen=True)
class Turn:
    """What a contestant does when it is its turn in a round.

    Args:
        nbytes: size of x and of y.
        count: timed echoes, at most.
        budget_s: fewer echoes where `count` of them would take longer than this; at least one.
        seed: values of x depend on it, so that an answer to an older x is seen to be wrong.
    """

    nbytes: int
    count: int
    budget_s: float
    seed: int


def take_turn(contestant: Contestant, turn: Turn) -> list[float]:
    """One echo that warms up and is checked, then the timed ones. Returns microseconds each.

    An echo is timed from x in hand until y was there and has been dropped: freeing what an answer came in is part of
    every message.
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
    """x of a turn: float32, in ordinary memory that has been touched."""
    ramp = torch.arange(turn.nbytes // 4, dtype=torch.float32)
    return ramp.remainder_(4093).add_(turn.seed % 1000)


def _timed(contestant: Contestant, x: torch.Tensor) -> float:
    started_ns = time.perf_counter_ns()
    contestant.echo(x)
    return (time.perf_counter_ns() - started_ns) / 1e3
