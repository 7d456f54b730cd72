"""Torch's own profiler for one step of a traced process, and the marks that align it with the trace's clock.

The coordinator turns it on in every role for one step, through the agent `profiler` that each traced server hosts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from mora_runtime.errors import ProtocolError
from mora_runtime.rpc.agent import Agent, remote
from mora_runtime.trace import tracing

PROFILER = "profiler"
CLOCK_MARK = "mora clock mark"  # a span that torch's profiler and the tracer both record: one moment on two clocks
_NUM_MARKS = 5  # the first one includes the start of torch's profiler


class TorchTrace:
    """Torch's profiler in this process, between `begin` and `end`; writes `<trace>.torch.json`."""

    def __init__(self) -> None:
        self._profile: torch.profiler.profile | None = None

    def begin(self) -> None:
        """Start recording every operation of the calling thread, and every kernel on the GPU."""
        has_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if has_gpu else [])]
        self._profile = torch.profiler.profile(activities=activities, record_shapes=True)
        self._profile.start()
        _mark_clock()

    def end(self) -> Path:
        """Stop recording and write the file; returns its path.

        Raises:
            ProtocolError: `begin` was not called, or this process is not traced.
        """
        tracer, profile, self._profile = tracing.active, self._profile, None
        if tracer is None or profile is None:
            raise ProtocolError("torch's profiler has not begun in this process; call begin before end")
        _mark_clock()
        profile.stop()
        path = torch_trace_path(tracer.path)
        profile.export_chrome_trace(str(path))
        return path


def _mark_clock() -> None:
    for _ in range(_NUM_MARKS):
        with tracing.span(CLOCK_MARK, "protocol"), record_function(CLOCK_MARK):
            pass


def torch_trace_path(trace: Path) -> Path:
    """Path of the torch profile that belongs to the trace file `trace`."""
    return trace.with_suffix(".torch.json")


class ProfilerAgent(Agent):
    """Turns torch's profiler, and tracing itself, on and off in a server."""

    def __init__(self, tracer: tracing.Tracer) -> None:
        self._tracer = tracer
        self._trace = TorchTrace()

    @remote
    def begin(self) -> dict[str, Any]:
        """See `TorchTrace.begin`."""
        self._trace.begin()
        return {}

    @remote
    def end(self) -> dict[str, Any]:
        """See `TorchTrace.end`."""
        self._trace.end()
        return {}

    @remote
    def pause(self) -> dict[str, Any]:
        """Stop tracing until `resume`; measurements use it to compare on with off in one process."""
        tracing.pause()
        return {}

    @remote
    def resume(self) -> dict[str, Any]:
        """Trace again."""
        tracing.resume(self._tracer)
        return {}


def profiler_agents() -> dict[str, Agent]:
    """The profiler agent by name if this process is traced, else an empty dict."""
    return {} if tracing.active is None else {PROFILER: ProfilerAgent(tracing.active)}
