"""The flattened spans of a thread: each moment belongs to the innermost span, so that times add up to the whole."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mora_launch.profiling.role_trace import RoleTrace, TraceSpan

CATEGORIES = ("compute", "copy", "wait", "protocol", "io")
UNTRACED = "untraced"


@dataclass(frozen=True)
class LanePiece:
    """A time interval that belongs to one span."""

    start_ns: int
    end_ns: int
    span: TraceSpan

    @property
    def spent_ns(self) -> int:
        """Length in ns."""
        return self.end_ns - self.start_ns


def flattened(spans: Iterable[TraceSpan]) -> Iterator[LanePiece]:
    """Turn nested spans of one thread, in the order of their ends, into disjoint pieces in order of time."""
    stack: list[TraceSpan] = []
    now_ns = 0

    def pieces_until(limit_ns: int) -> Iterator[LanePiece]:
        nonlocal now_ns
        while stack and stack[-1].end_ns <= limit_ns:
            span = stack.pop()
            if span.end_ns > now_ns:
                yield LanePiece(now_ns, span.end_ns, span)
                now_ns = span.end_ns
        if stack and limit_ns > now_ns:
            yield LanePiece(now_ns, limit_ns, stack[-1])
        now_ns = max(now_ns, limit_ns)

    # of two spans with the same start and end, the later one in this order encloses the other
    for span in sorted(reversed(list(spans)), key=lambda each: (each.start_ns, -each.end_ns)):
        yield from pieces_until(span.start_ns)
        stack.append(span)
    while stack:
        yield from pieces_until(max(span.end_ns for span in stack))


class Lane:
    """The activity of one role's main thread, moment by moment."""

    def __init__(self, trace: RoleTrace) -> None:
        self.role = trace.role
        self.name = trace.name
        self.replica = trace.replica
        mine = [span for span in trace.spans if span.thread == trace.main_thread]
        self.spans = sorted(mine, key=lambda span: span.start_ns)
        self.segments = list(flattened(mine))
        self._starts = [segment.start_ns for segment in self.segments]

    def within(self, start_ns: int, end_ns: int) -> list[LanePiece]:
        """Return the pieces inside a window, cut at its borders."""
        first = max(0, bisect_right(self._starts, start_ns) - 1)
        last = bisect_left(self._starts, end_ns)
        cut = (
            LanePiece(max(piece.start_ns, start_ns), min(piece.end_ns, end_ns), piece.span)
            for piece in self.segments[first:last]
        )
        return [piece for piece in cut if piece.spent_ns > 0]

    def shares(self, start_ns: int, end_ns: int) -> dict[str, float]:
        """Return seconds by category inside a window; `untraced` fills the rest, so they add up to the window."""
        spent_ns = dict.fromkeys((*CATEGORIES, UNTRACED), 0)
        for piece in self.within(start_ns, end_ns):
            spent_ns[piece.span.category] += piece.spent_ns
        spent_ns[UNTRACED] = end_ns - start_ns - sum(spent_ns.values())
        return {category: ns / 1e9 for category, ns in spent_ns.items()}

    def gaps(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """Return the intervals of a window in which the thread is idle: it waits, or no span covers it."""
        busy = [piece for piece in self.within(start_ns, end_ns) if piece.span.category != "wait"]
        return _between([(piece.start_ns, piece.end_ns) for piece in busy], start_ns, end_ns)


def _between(busy: Sequence[tuple[int, int]], start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    gaps = []
    now_ns = start_ns
    for begin_ns, finish_ns in busy:
        if begin_ns > now_ns:
            gaps.append((now_ns, begin_ns))
        now_ns = max(now_ns, finish_ns)
    if end_ns > now_ns:
        gaps.append((now_ns, end_ns))
    return gaps
