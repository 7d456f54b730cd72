"""Interleaved rounds: every contestant has a turn in each, and each round begins with another contestant."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.ipc.contestant import Contestant, Turn, take_turn
from benchmarks.ipc.plan import SizePlan
from benchmarks.ipc.remote_peers import Caller
from benchmarks.ipc.turn_process import TurnFailed

_UNLIMITED_S = 1e9


@dataclass
class RemotePeer:
    """A contestant in a caller's process; after a failure it has no more turns."""

    name: str
    caller: Caller
    note: str | None = None
    max_nbytes: int | None = None
    failure: str | None = None

    def can_carry(self, nbytes: int) -> bool:
        """True if it has not failed and can carry this size."""
        return self.failure is None and (self.max_nbytes is None or nbytes <= self.max_nbytes)


@dataclass
class Measurement:
    """Times of one size, in microseconds, by contestant and round; every turn has been checked."""

    plan: SizePlan
    times_us: dict[str, list[list[float]]] = field(default_factory=dict)
    num_checked: dict[str, int] = field(default_factory=dict)

    def median_us(self, name: str) -> float:
        """Median over all echoes of all rounds."""
        return statistics.median(time_us for times_us in self.times_us[name] for time_us in times_us)

    def ratio_by_round(self, name: str, other: str) -> list[float]:
        """Ratio of the medians in each round, which shows how noisy the ratio is."""
        pairs = zip(self.times_us[name], self.times_us[other], strict=True)
        return [statistics.median(a) / statistics.median(b) for a, b in pairs]

    def add(self, name: str, times_us: list[float]) -> None:
        """One turn."""
        self.times_us.setdefault(name, []).append(times_us)
        self.num_checked[name] = self.num_checked.get(name, 0) + 1


def measure(
    plan: SizePlan, local: Sequence[Contestant], peers: Sequence[RemotePeer], progress: Callable[[], None]
) -> Measurement:
    """All rounds of one size.

    Args:
        local: contestants in this process; they have a turn in every round.
        peers: contestants in callers' processes, with turns in some rounds; one that fails has no more turns.
        progress: called after every turn; an exception from it ends the measurement.
    """
    measurement = Measurement(plan)
    for number in range(plan.num_rounds):
        playing: list[Contestant | RemotePeer] = list(local)
        if plan.has_peers(number):
            playing += [peer for peer in peers if peer.can_carry(plan.nbytes)]
        first = number % len(playing)
        for contestant in playing[first:] + playing[:first]:
            times_us = _play(contestant, plan, number)
            if times_us:
                measurement.add(contestant.name, times_us)
            progress()
    return measurement


def _play(contestant: Contestant | RemotePeer, plan: SizePlan, number: int) -> list[float]:
    if isinstance(contestant, Contestant):
        return take_turn(contestant, Turn(plan.nbytes, plan.num_echoes, _UNLIMITED_S, seed=number))
    turn = Turn(plan.nbytes, plan.num_peer_echoes, plan.budget_s, seed=number)
    try:
        return contestant.caller.take_turn(contestant.name, turn)
    except TurnFailed as error:
        contestant.failure = f"at {plan.nbytes} bytes: {error}"
        return []
