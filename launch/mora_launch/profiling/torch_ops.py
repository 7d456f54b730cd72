"""Operations that torch's profiler recorded in one role, shifted to CLOCK_MONOTONIC by marks on both clocks."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import TraceError

from mora_launch.profiling.role_trace import RoleTrace

CLOCK_MARK = "mora clock mark"  # as `mora_runtime.rpc.torch_trace` names them
MAX_NUM_OPS = 300_000  # of one role; the shortest ones beyond it are left out
_SHOWN = ("cpu_op", "user_annotation", "kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", "gpu_user_annotation")


@dataclass(frozen=True)
class TorchOp:
    """One operation, or kernel on a GPU. `lane` is the thread or GPU stream on which it ran."""

    name: str
    category: str
    start_ns: float
    spent_ns: float
    lane: str
    args: dict[str, Any]


@dataclass(frozen=True)
class TorchOps:
    """All operations of one role, and how well the clocks agree.

    alignment_error_ns: largest difference between the marks after the shift, over the whole profiled step.
    """

    role: str
    ops: tuple[TorchOp, ...]
    alignment_error_ns: float
    num_left_out: int


def read_torch_ops(path: Path, trace: RoleTrace) -> TorchOps:
    """Read the profile of a role; `trace` contains our half of the clock marks.

    Raises:
        TraceError: the file is not a profile of torch, or the marks do not match.
    """
    try:
        events = [event for event in json.loads(path.read_text(encoding="utf-8"))["traceEvents"] if _is_shown(event)]
    except (ValueError, KeyError) as error:
        raise TraceError(f"{path.name}: is not a trace of torch's profiler: {error}") from None
    offset_ns, error_ns = _clock_offset(events, trace)
    events.sort(key=lambda event: -event["dur"])
    ops = tuple(
        TorchOp(
            event["name"],
            event["cat"],
            event["ts"] * 1e3 + offset_ns,
            event["dur"] * 1e3,
            f"{'GPU' if event['cat'].startswith(('gpu', 'kernel')) else 'thread'} {event['tid']}",
            event.get("args", {}),
        )
        for event in events[:MAX_NUM_OPS]
        if event["name"] != CLOCK_MARK
    )
    return TorchOps(trace.role, ops, error_ns, max(0, len(events) - MAX_NUM_OPS))


def _is_shown(event: dict[str, Any]) -> bool:
    return event.get("ph") == "X" and event.get("cat") in _SHOWN


def _clock_offset(events: list[dict[str, Any]], trace: RoleTrace) -> tuple[float, float]:
    """Return the shift of torch's times and the largest remaining error of a mark, in ns.

    Our span of a mark encloses torch's, so their middles differ by at most half the difference in length. Marks with a
    large difference are not used, such as the first one, which includes the start of torch's profiler.
    """
    marks = [event for event in events if event["name"] == CLOCK_MARK and event["cat"] == "user_annotation"]
    theirs = sorted((event["ts"] * 1e3, event["dur"] * 1e3) for event in marks)
    ours = sorted((span.start_ns, span.spent_ns) for span in trace.spans if span.name == CLOCK_MARK)
    if not ours or len(ours) != len(theirs):
        raise TraceError(
            f"{trace.role}: expected as many clock marks in its trace as in torch's, got {len(ours)} and "
            f"{len(theirs)}; torch's profile is left out"
        )
    pairs = [
        (start + spent / 2 - their_start - their_spent / 2, abs(spent - their_spent) / 2)
        for (start, spent), (their_start, their_spent) in zip(ours, theirs, strict=True)
    ]
    sharpest = min(doubt for _, doubt in pairs)
    sharp = [offset for offset, doubt in pairs if doubt <= 4 * sharpest + 1e3]
    offset = statistics.median(sharp)
    return offset, max(abs(other - offset) for other in sharp)
