"""The pipeline bubble: the time in which a server that has work in the step is idle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mora_launch.profiling.lane import Lane
from mora_launch.profiling.step_window import COORDINATOR, StepWindow


@dataclass(frozen=True)
class Idle:
    """A time in which one server waits while micro-batches go through the chain.

    kind: `fill` before its first work of the step, `drain` after its last, `between` in the middle.
    """

    role: str
    kind: str
    start_ns: int
    end_ns: int

    @property
    def spent_ns(self) -> int:
        """Length in ns."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True)
class Bubble:
    """All idle times of one step.

    share: idle time of the servers by their number times the length of the pipeline; 0 = all compute all the time.
    imbalance_share: the part of it that no schedule can remove, because one server has more work than another.
    """

    idle: tuple[Idle, ...]
    share: float
    imbalance_share: float

    def seconds(self) -> dict[str, dict[str, float]]:
        """Return the idle seconds by role and kind."""
        found: dict[str, dict[str, float]] = {}
        for idle in self.idle:
            kinds = found.setdefault(idle.role, {"fill": 0.0, "between": 0.0, "drain": 0.0})
            kinds[idle.kind] += idle.spent_ns / 1e9
        return found


def bubble(lanes: Sequence[Lane], step: StepWindow) -> Bubble:
    """Return the bubble of a step, over the servers of its replica that compute for its micro-batches."""
    start_ns, end_ns = step.pipeline
    idle: list[Idle] = []
    busy_ns: list[int] = []
    for lane in lanes:
        if lane.name == COORDINATOR or lane.replica != step.replica:
            continue
        work = [piece for piece in lane.within(start_ns, end_ns) if piece.span.category == "compute"]
        if not work:
            continue
        gaps = lane.gaps(start_ns, end_ns)
        busy_ns.append(end_ns - start_ns - sum(finish_ns - begin_ns for begin_ns, finish_ns in gaps))
        for begin_ns, finish_ns in gaps:
            kind = "fill" if finish_ns <= work[0].start_ns else "drain" if begin_ns >= work[-1].end_ns else "between"
            idle.append(Idle(lane.role, kind, begin_ns, finish_ns))
    total_ns = len(busy_ns) * (end_ns - start_ns)
    if not total_ns:
        return Bubble((), 0.0, 0.0)
    uneven_ns = sum(max(busy_ns) - each for each in busy_ns)
    return Bubble(tuple(idle), sum(each.spent_ns for each in idle) / total_ns, uneven_ns / total_ns)
