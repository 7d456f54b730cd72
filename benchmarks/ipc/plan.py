"""Which sizes are measured, and how often."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class SizePlan:
    """How one size is measured.

    Args:
        num_rounds: number of rounds; each contestant has one turn in each.
        num_echoes: timed echoes in a turn of Mora or of the lower bound.
        num_peer_echoes: timed echoes in a turn of a peer; fewer if they would take longer than `budget_s`.
        num_peer_rounds: rounds in which peers have turns; they are spread evenly.
    """

    nbytes: int
    num_rounds: int
    num_echoes: int
    num_peer_echoes: int
    num_peer_rounds: int
    budget_s: float = 1.0

    def has_peers(self, number: int) -> bool:
        """True if peers have turns in this round."""
        before, after = (n * self.num_peer_rounds // self.num_rounds for n in (number, number + 1))
        return after > before

    def scaled(self, factor: float) -> SizePlan:
        """With `factor` times the rounds, at least two."""
        rounds = max(2, round(self.num_rounds * factor))
        peer_rounds = max(1, min(rounds, round(self.num_peer_rounds * factor)))
        return SizePlan(self.nbytes, rounds, self.num_echoes, self.num_peer_echoes, peer_rounds, self.budget_s)


SMALL_NBYTES = KIB
REFERENCE_NBYTES = 256 * MIB
FULL = (
    SizePlan(KIB, num_rounds=21, num_echoes=200, num_peer_echoes=100, num_peer_rounds=21),
    SizePlan(64 * KIB, num_rounds=15, num_echoes=100, num_peer_echoes=50, num_peer_rounds=15),
    SizePlan(MIB, num_rounds=15, num_echoes=50, num_peer_echoes=25, num_peer_rounds=15),
    SizePlan(16 * MIB, num_rounds=15, num_echoes=10, num_peer_echoes=5, num_peer_rounds=9),
    SizePlan(64 * MIB, num_rounds=15, num_echoes=5, num_peer_echoes=3, num_peer_rounds=7),
    SizePlan(256 * MIB, num_rounds=9, num_echoes=3, num_peer_echoes=2, num_peer_rounds=3),
)
QUICK = (
    SizePlan(KIB, num_rounds=3, num_echoes=20, num_peer_echoes=10, num_peer_rounds=3),
    SizePlan(MIB, num_rounds=3, num_echoes=5, num_peer_echoes=3, num_peer_rounds=2),
)
