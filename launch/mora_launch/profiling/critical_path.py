"""The critical path of a step: the chain of work and messages that determined its end, traced backwards from there."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mora_launch.profiling.lane import UNTRACED, Lane
from mora_launch.profiling.message import Message
from mora_launch.profiling.role_trace import TraceSpan
from mora_launch.profiling.step_window import COORDINATOR, StepWindow

MESSAGE = "message"
RECEIVE = "receive"  # name of the span in which a client reads a message
_HANDLING_NS = 200_000  # time for a server to read a message and to record that it did


@dataclass(frozen=True)
class PathPiece:
    """A piece of the path. Its `category` is `message` for a message in transit; `role` is then the receiver."""

    role: str
    name: str
    category: str
    start_ns: int
    end_ns: int

    @property
    def spent_ns(self) -> int:
        """Length in ns."""
        return self.end_ns - self.start_ns


def critical_path(lanes: Sequence[Lane], messages: Sequence[Message], step: StepWindow) -> list[PathPiece]:
    """Return pieces that cover the step without a gap, in order of time.

    If a role was waiting when a message came, the path continues at its sender; if it was busy, at the role itself.
    """
    by_role = {lane.role: lane for lane in lanes}
    arriving: dict[str, list[Message]] = defaultdict(list)
    for message in messages:
        if message.source in by_role and message.target in by_role:
            arriving[message.target].append(message)
    path: list[PathPiece] = []
    lane, now_ns = by_role[f"{COORDINATOR}.{step.replica}"], step.end_ns
    while now_ns > step.start_ns:
        cause = _held_up_by(lane, arriving[lane.role], now_ns)
        if cause is None or cause.sent.at_ns <= step.start_ns:
            path += reversed(_pieces(lane, step.start_ns, now_ns))
            break
        path += reversed(_pieces(lane, cause.taken.at_ns, now_ns))
        path.append(PathPiece(lane.role, f"from {cause.source}", MESSAGE, cause.sent.at_ns, cause.taken.at_ns))
        lane, now_ns = by_role[cause.source], cause.sent.at_ns
    return path[::-1]


def _held_up_by(lane: Lane, arriving: Sequence[Message], until_ns: int) -> Message | None:
    """Return the last message before `until_ns` that arrived while the lane was waiting."""
    last = bisect_right([message.taken.at_ns for message in arriving], until_ns)
    for message in reversed(arriving[:last]):
        if message.sent.at_ns >= message.taken.at_ns:
            continue  # without a length it would not lead back in time
        on_its_way = lane.within(message.sent.at_ns, message.taken.at_ns)
        busy_ns = sum(piece.spent_ns for piece in on_its_way if not _is_waiting(piece.span))
        if busy_ns < _HANDLING_NS:
            return message
    return None


def _is_waiting(span: TraceSpan) -> bool:
    return span.category == "wait" or span.name == RECEIVE


def _pieces(lane: Lane, start_ns: int, end_ns: int) -> list[PathPiece]:
    """Return what a lane did, one piece per span, including time that no span covers."""
    pieces: list[PathPiece] = []
    now_ns = start_ns
    for piece in lane.within(start_ns, end_ns):
        if piece.start_ns > now_ns:
            pieces.append(PathPiece(lane.role, UNTRACED, UNTRACED, now_ns, piece.start_ns))
        pieces.append(PathPiece(lane.role, piece.span.name, piece.span.category, piece.start_ns, piece.end_ns))
        now_ns = piece.end_ns
    if end_ns > now_ns:
        pieces.append(PathPiece(lane.role, UNTRACED, UNTRACED, now_ns, end_ns))
    return pieces


def path_sums(path: Sequence[PathPiece]) -> list[dict[str, object]]:
    """Return the seconds on the path by role, category and name, longest first."""
    spent_ns: dict[tuple[str, str, str], int] = defaultdict(int)
    for piece in path:
        spent_ns[(piece.role, piece.category, piece.name)] += piece.spent_ns
    ranked = sorted(spent_ns.items(), key=lambda entry: -entry[1])
    return [
        {"role": role, "category": category, "name": name, "spent_s": ns / 1e9} for (role, category, name), ns in ranked
    ]
