"""Reads one role's trace file, written by `mora_runtime.trace.trace_writer`; a killed role leaves a partial one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mora_runtime.errors import TraceError
from mora_runtime.process.role import Role

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TraceSpan:
    """Time that one thread spent in a block, on CLOCK_MONOTONIC."""

    name: str
    category: str  # compute copy wait protocol io, or request (of a server's front)
    start_ns: int
    end_ns: int
    thread: int  # native id
    args: dict[str, Any] = field(default_factory=dict)
    is_cut: bool = False  # the role ended inside it; `end_ns` is then the last time in its trace

    @property
    def spent_ns(self) -> int:
        """Length in ns."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True)
class FlowEnd:
    """One end of a message: where it was sent (`is_start`) or received."""

    key: str  # the same at both ends
    is_start: bool
    at_ns: int
    thread: int


@dataclass(frozen=True)
class Move:
    """A tensor of one message: the owner of its bytes, the receiver, and the kind of transfer."""

    kind: str  # one of `mora_runtime.trace.tracing.MoveKind`
    nbytes: int
    source: str  # role
    target: str  # role
    spent_ns: int
    at_ns: int
    thread: int


@dataclass(frozen=True)
class CounterSample:
    """The values of a counter from one time on."""

    counter: str
    at_ns: int
    values: dict[str, float]


@dataclass
class RoleTrace:
    """Everything that one process recorded. Spans are in the order of their ends."""

    role: str
    pid: int
    main_thread: int
    thread_names: dict[int, str] = field(default_factory=dict)
    spans: list[TraceSpan] = field(default_factory=list)
    flows: list[FlowEnd] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    samples: list[CounterSample] = field(default_factory=list)
    num_dropped: int = 0
    is_complete: bool = False  # the process wrote the end mark

    @property
    def name(self) -> str:
        """Name of the role: coordinator for coordinator.0."""
        return Role(self.role).name

    @property
    def replica(self) -> int:
        """Number of the replica: 0 for coordinator.0."""
        return Role(self.role).replica


def read_role_trace(path: Path) -> RoleTrace:
    """Read one file. A last line that was cut off when its process ended is ignored.

    Raises:
        TraceError: the file is not a trace, or has another version.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last newline was cut off
    try:
        head, *events = [json.loads(line) for line in lines]
        mark, version, role, pid, main_thread = head
        if mark != "M" or version != FORMAT_VERSION:
            raise ValueError(f"expected a head of version {FORMAT_VERSION}, got {head}")
        trace = RoleTrace(role, pid, main_thread)
        opened: dict[tuple[int, str, int], TraceSpan] = {}
        last_ns = 0
        for event in events:
            last_ns = max(last_ns, _take(trace, event, opened))
    except (ValueError, TypeError, KeyError) as error:
        raise TraceError(f"{path.name}: is not a trace of this version of Mora: {error}") from None
    for span in opened.values():
        end_ns = max(last_ns, span.start_ns)
        cut = TraceSpan(span.name, span.category, span.start_ns, end_ns, span.thread, span.args, is_cut=True)
        trace.spans.append(cut)
    return trace


def _take(trace: RoleTrace, event: list[Any], opened: dict[tuple[int, str, int], TraceSpan]) -> int:
    """Add one line to the trace; return the latest time in it."""
    if event[0] == "T":
        trace.thread_names[event[1]] = event[2]
        return 0
    if event[0] == "E":
        trace.num_dropped, trace.is_complete = event[1], True
        return 0
    kind, name, category, at_ns, spent_ns, thread, args = event
    if kind in ("X", "B"):
        span = TraceSpan(name, category, at_ns, at_ns + spent_ns, thread, args or {})
        _take_span(trace, span, opened, has_ended=kind == "X")
    elif kind in ("s", "f"):
        trace.flows.append(FlowEnd(name, kind == "s", at_ns, thread))
    elif kind == "i":
        source, target = role_of(args["from"]), role_of(args["to"])
        trace.moves.append(Move(name, args["nbytes"], source, target, args["spent_ns"], at_ns, thread))
    elif kind == "C":
        trace.samples.append(CounterSample(name, at_ns, args))
    else:
        raise ValueError(f"unknown kind of event {kind!r}")
    return int(at_ns + spent_ns)


def _take_span(
    trace: RoleTrace, span: TraceSpan, opened: dict[tuple[int, str, int], TraceSpan], *, has_ended: bool
) -> None:
    key = (span.thread, span.name, span.start_ns)
    if has_ended:
        opened.pop(key, None)
        trace.spans.append(span)
    else:
        opened[key] = span


def role_of(identity: str) -> str:
    """Return the role of an identity: coordinator.0 for coordinator.0.1.5f3a...#1."""
    return ".".join(identity.split(".")[:2])


def read_role_traces(folder: Path) -> list[RoleTrace]:
    """Read all roles of a run: coordinators first, then the agents by name."""
    traces = [read_role_trace(path) for path in sorted(folder.glob("*.jsonl")) if path.stat().st_size]
    return sorted(traces, key=lambda trace: (trace.replica, trace.name != "coordinator", trace.role))
