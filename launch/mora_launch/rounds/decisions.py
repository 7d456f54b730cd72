"""From two verdicts to a decision: agreement is taken, disagreement goes to a person, or to a rule."""

from __future__ import annotations

from collections.abc import Sequence

from mora_launch.rounds.judging.judge import Verdict
from mora_launch.rounds.store import SetDecision


def decide(verdicts: Sequence[Verdict]) -> SetDecision | None:
    """What two judges agree on; None is for a person.

    Both name the same candidate: it is taken. Both say that none is good: the set is dropped. Anything else, an
    abstention included, is no agreement.
    """
    if any(verdict.ranking is None for verdict in verdicts):
        return None
    best = {verdict.best for verdict in verdicts}
    if len(best) > 1:
        return None
    chosen = best.pop()
    return SetDecision(chosen, "judges", reason="none is good" if chosen is None else "both judges rank it first")


def decide_by_rule(verdicts: Sequence[Verdict], num_candidates: int) -> SetDecision:
    """Without a person: the best mean rank over the judges that answered; a tie goes to the first judge's better one.

    "None is good" ranks every candidate last, below `none` itself: a set is dropped where no judge stands up for a
    candidate, or where one finds none good and the other abstained.
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
