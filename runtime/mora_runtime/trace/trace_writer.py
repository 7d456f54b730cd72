"""Writing a process's trace to its file several times a second, in a thread of its own; owned by `Tracer`.

After a kill, the file contains everything but the last fraction of a second, and the spans that were open.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from mora_runtime.limits import FILES_DEADLINE_S, TRACE_PERIOD_S
from mora_runtime.trace.gpu_gauge import GpuGauge

if TYPE_CHECKING:
    from mora_runtime.trace.tracing import Tracer

log = logging.getLogger(__name__)
FORMAT_VERSION = 1


class TraceWriter:
    """A thread that writes the events of a tracer and samples its counters."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._file = tracer.path.open("w", encoding="utf-8")
        self._named: set[int] = set()  # threads whose name is in the file
        self._ended = threading.Event()
        self._sampled_ns = time.monotonic_ns()
        self._cpu_ns = time.process_time_ns()
        main = threading.main_thread().native_id
        self._write_line(["M", FORMAT_VERSION, tracer.role, os.getpid(), main])
        self._file.flush()
        tracer.gauges["cpu"] = self._cpu_use
        tracer.gauges["gpu"] = GpuGauge().sample
        self._thread = threading.Thread(target=self._run, name="trace-writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(TRACE_PERIOD_S):
            if not self._tracer.is_paused:
                self._sample()
                self._write()

    def _cpu_use(self) -> dict[str, float]:
        """Cores that this process has kept busy since the last sample."""
        now_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
        use = (cpu_ns - self._cpu_ns) / max(1, now_ns - self._sampled_ns)
        self._sampled_ns, self._cpu_ns = now_ns, cpu_ns
        return {"cores": round(use, 3)}

    def _sample(self) -> None:
        for name, gauge in list(self._tracer.gauges.items()):
            values = gauge()
            if values:
                self._tracer.count(name, values)

    def _write(self) -> None:
        opened = [span.opened() for span in self._tracer.open_spans.copy().values()]
        self._name_threads()
        for _ in range(len(self._tracer.events)):
            self._write_line(list(self._tracer.events.popleft()))
        for event in opened:
            self._write_line(list(event))
        self._file.flush()

    def _name_threads(self) -> None:
        for thread in threading.enumerate():
            if thread.native_id is not None and thread.native_id not in self._named:
                self._named.add(thread.native_id)
                self._write_line(["T", thread.native_id, thread.name])

    def _write_line(self, line: list[object]) -> None:
        self._file.write(json.dumps(line) + "\n")

    def end(self) -> None:
        """Write the remaining events and the end line; give up if the thread does not finish in time."""
        self._ended.set()
        self._thread.join(FILES_DEADLINE_S)
        if self._thread.is_alive():
            log.error("the trace was not written within %.0f s, so it is incomplete", FILES_DEADLINE_S)
            return
        self._sample()
        self._write()
        self._write_line(["E", self._tracer.num_dropped])
        self._file.close()
