"""Turns two verdicts into a decision: if the judges disagree, a person or a rule decides."""

from __future__ import annotations

from collections.abc import Sequence

from mora_launch.rounds.judging.judge import Verdict
from mora_launch.rounds.store import SetDecision


def decide(verdicts: Sequence[Verdict]) -> SetDecision | None:
    """Return the decision of two agreeing judges, or None if they disagree.

    If both rank the same candidate first, it is chosen. If both say that none is good, the set is dropped. Everything
    else, including an abstention, is a disagreement.
    """
    if any(verdict.ranking is None for verdict in verdicts):
        return None
    best = {verdict.best for verdict in verdicts}
    if len(best) > 1:
        return None
    chosen = best.pop()
    return SetDecision(chosen, "judges", reason="none is good" if chosen is None else "both judges rank it first")


def decide_by_rule(verdicts: Sequence[Verdict], num_candidates: int) -> SetDecision:
    """Decide without a person: choose the best mean rank over the judges that answered.

    A tie goes to the candidate that the first judge prefers. "None is good" ranks every candidate last, below `none`
    itself. So a set is dropped if no judge supports a candidate, or if one finds none good and the other abstains.
    """
    answered = [verdict for verdict in verdicts if verdict.ranking is not None]
    speaking = [verdict.ranking for verdict in answered if verdict.ranking]
    if not speaking:
        reason = "no judge answered" if not answered else "no judge found a good one"
        return SetDecision(None, "rule", reason=reason)
    ranks = {
        candidate: [ranking.index(candidate) for ranking in speaking if ranking is not None]
        for candidate in range(num_candidates)
    }
    chosen = min(ranks, key=lambda candidate: (sum(ranks[candidate]), ranks[candidate]))
    return SetDecision(chosen, "rule", reason=f"best mean rank of {len(speaking)} judge(s) that disagree")
