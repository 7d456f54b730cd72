"""Merges all roles into one trace for ui.perfetto.dev or chrome://tracing: processes, threads, spans, arrows, counters.

Times are microseconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mora_runtime.files.fresh_file import fresh_file

from mora_launch.profiling.message import matched_messages
from mora_launch.profiling.role_trace import CounterSample, FlowEnd, Move, RoleTrace, TraceSpan
from mora_launch.profiling.torch_ops import TorchOps
from mora_launch.telemetry.recording import REQUEST

_TORCH_LANE = 1_000_000_000  # first lane number of torch's operations, above any thread id


def write_merged_trace(path: Path, traces: Sequence[RoleTrace], torch_ops: Sequence[TorchOps]) -> int:
    """Write the gzipped JSON; return the number of events."""
    number = 0
    with (
        fresh_file(path) as whole,
        gzip.GzipFile(path.stem, "wb", 5, whole) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as file,
    ):
        file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        for event in merged_events(traces, torch_ops):
            file.write((",\n" if number else "") + json.dumps(event))
            number += 1
        file.write("\n]}\n")
    return number


def merged_events(traces: Sequence[RoleTrace], torch_ops: Sequence[TorchOps] = ()) -> Iterator[dict[str, Any]]:
    """Yield events in Chrome's trace format."""
    pids = {trace.role: trace.pid for trace in traces}
    for order, trace in enumerate(traces):
        yield from _names(trace, order)
        for span in trace.spans:
            yield from _request(trace.pid, span) if span.category == REQUEST else (_span(trace.pid, span),)
        yield from (_move(trace.pid, move) for move in trace.moves)
        yield from (_counter(trace.pid, sample) for sample in trace.samples)
    for number, message in enumerate(matched_messages(traces), start=1):
        yield _arrow(pids[message.source], message.sent, number)
        yield _arrow(pids[message.target], message.taken, number)
    for ops in torch_ops:
        yield from _torch(pids[ops.role], ops)


def _names(trace: RoleTrace, order: int) -> Iterator[dict[str, Any]]:
    yield _meta(trace.pid, 0, "process_name", name=trace.role)
    yield _meta(trace.pid, 0, "process_sort_index", sort_index=order)
    for thread, name in trace.thread_names.items():
        yield _meta(trace.pid, thread, "thread_name", name="main" if thread == trace.main_thread else name)
        yield _meta(trace.pid, thread, "thread_sort_index", sort_index=int(thread != trace.main_thread))


def _meta(pid: int, tid: int, what: str, **args: object) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _span(pid: int, span: TraceSpan) -> dict[str, Any]:
    event = {
        "ph": "X", "name": span.name, "cat": span.category, "pid": pid, "tid": span.thread,
        "ts": span.start_ns / 1e3, "dur": span.spent_ns / 1e3,
    }  # fmt: skip
    args = {**span.args, "cut": True} if span.is_cut else span.args
    return {**event, "args": args} if args else event


def _request(pid: int, span: TraceSpan) -> Iterator[dict[str, Any]]:
    """Two ends on a track of its own, because requests overlap and do not nest in a thread."""
    common = {"name": span.name, "cat": REQUEST, "pid": pid, "tid": span.thread, "id": span.args["span_id"]}
    yield {"ph": "b", "ts": span.start_ns / 1e3, "args": span.args, **common}
    yield {"ph": "e", "ts": span.end_ns / 1e3, **common}


def _move(pid: int, move: Move) -> dict[str, Any]:
    args = {"nbytes": move.nbytes, "from": move.source, "to": move.target}
    return {
        "ph": "i", "s": "t", "name": f"tensor {move.kind}", "cat": "move", "pid": pid, "tid": move.thread,
        "ts": move.at_ns / 1e3, "args": args,
    }  # fmt: skip


def _counter(pid: int, sample: CounterSample) -> dict[str, Any]:
    return {
        "ph": "C", "name": sample.counter, "cat": "counter", "pid": pid, "tid": 0, "ts": sample.at_ns / 1e3,
        "args": sample.values,
    }  # fmt: skip


def _arrow(pid: int, end: FlowEnd, number: int) -> dict[str, Any]:
    event = {
        "ph": "s" if end.is_start else "f", "id": number, "name": "message", "cat": "message", "pid": pid,
        "tid": end.thread, "ts": end.at_ns / 1e3,
    }  # fmt: skip
    return event if end.is_start else {**event, "bp": "e"}


def _torch(pid: int, ops: TorchOps) -> Iterator[dict[str, Any]]:
    """Put torch's operations on separate lanes: clocks that differ by a microsecond would break the nesting of ours."""
    lanes = {lane: _TORCH_LANE + index for index, lane in enumerate(sorted({op.lane for op in ops.ops}))}
    for lane, tid in lanes.items():
        yield _meta(pid, tid, "thread_name", name=f"torch: {lane}")
        yield _meta(pid, tid, "thread_sort_index", sort_index=2)
    for op in ops.ops:
        yield {
            "ph": "X", "name": op.name, "cat": op.category, "pid": pid, "tid": lanes[op.lane],
            "ts": round(op.start_ns) / 1e3, "dur": round(op.spent_ns) / 1e3, "args": op.args,
        }  # fmt: skip
