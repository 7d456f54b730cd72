"""Messages between roles: both ends of an arrow, matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mora_launch.profiling.role_trace import FlowEnd, RoleTrace


@dataclass(frozen=True)
class Message:
    """From the moment it was about to leave until it was taken in."""

    source: str  # role
    target: str
    sent: FlowEnd
    taken: FlowEnd


def matched_messages(traces: Sequence[RoleTrace]) -> list[Message]:
    """Every message of which both ends were recorded, in the order in which they were taken in."""
    starts = {flow.key: (trace.role, flow) for trace in traces for flow in trace.flows if flow.is_start}
    ends = [(trace.role, flow) for trace in traces for flow in trace.flows if not flow.is_start]
    found = [Message(starts[end.key][0], role, starts[end.key][1], end) for role, end in ends if end.key in starts]
    return sorted(found, key=lambda message: message.taken.at_ns)
