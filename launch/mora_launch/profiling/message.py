"""Messages between roles: both ends of an arrow, matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mora_launch.profiling.role_trace import FlowEnd, RoleTrace


@dataclass(frozen=True)
class Message:
    """A message, from just before it was sent until it was received."""

    source: str  # role
    target: str
    sent: FlowEnd
    taken: FlowEnd


def matched_messages(traces: Sequence[RoleTrace]) -> list[Message]:
    """Return all messages with both ends recorded, in the order of their receipt."""
    starts = {flow.key: (trace.role, flow) for trace in traces for flow in trace.flows if flow.is_start}
    ends = [(trace.role, flow) for trace in traces for flow in trace.flows if not flow.is_start]
    found = [Message(starts[end.key][0], role, starts[end.key][1], end) for role, end in ends if end.key in starts]
    return sorted(found, key=lambda message: message.taken.at_ns)
