"""Agreement between the judges, and between people and judges: counts, and Cohen's kappa of the first choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mora_launch.rounds.store import RoundFolder


@dataclass(frozen=True)
class Agreement:
    """The agreement of two judges over the sets that both have seen."""

    num_sets: int
    num_both_answered: int
    num_agreed: int
    num_abstentions: int
    kappa: float | None  # of the first choice; None if undefined
    by_reviewer: dict[str, tuple[int, int, int]]  # sets decided, those like the first judge, those like the second

    @property
    def share_text(self) -> str:
        """Number of agreements as text for a table."""
        return f"{self.num_agreed} of {self.num_both_answered}"

    def __str__(self) -> str:
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        people = "".join(
            f"; {name} decided {total}, {first} as the first judge, {second} as the second"
            for name, (total, first, second) in self.by_reviewer.items()
        )
        return f"agree on {self.share_text}{kappa}, {self.num_abstentions} abstention(s){people}"


def agreement_of_rounds(folders: Sequence[RoundFolder]) -> Agreement:
    """Compute the agreement over all sets of these rounds."""
    pairs: list[tuple[int | None, int | None]] = []
    num_sets = num_abstentions = 0
    people: dict[str, list[int]] = {}
    for folder in folders:
        plan = folder.plan()
        for index in range(0 if plan is None else len(plan.sets)):
            files = folder.set(index)
            first, second = files.verdict(0), files.verdict(1)
            if first is None or second is None:
                continue
            num_sets += 1
            num_abstentions += (first.ranking is None) + (second.ranking is None)
            if first.ranking is not None and second.ranking is not None:
                pairs.append((first.best, second.best))
            decision = files.decision()
            if decision is not None and decision.reviewer is not None:
                counts = people.setdefault(decision.reviewer, [0, 0, 0])
                counts[0] += 1
                counts[1] += first.ranking is not None and first.best == decision.chosen
                counts[2] += second.ranking is not None and second.best == decision.chosen
    by_reviewer = {name: (counts[0], counts[1], counts[2]) for name, counts in sorted(people.items())}
    agreed = sum(a == b for a, b in pairs)
    return Agreement(num_sets, len(pairs), agreed, num_abstentions, cohens_kappa(pairs), by_reviewer)


def cohens_kappa(pairs: Sequence[tuple[int | None, int | None]]) -> float | None:
    """Return the agreement of two raters beyond chance, 1 = complete; None without pairs or if chance agrees surely."""
    if not pairs:
        return None
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / len(pairs)
    expected = sum(first[choice] * second[choice] for choice in first) / len(pairs) ** 2
    return None if expected >= 1.0 else (observed - expected) / (1.0 - expected)
