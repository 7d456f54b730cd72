"""Prometheus metrics of requests, queue and servers, for `/metrics`; docs/serving.md has their table.

Suffixes and labels are those of vLLM where it has the metric. Labels take values from closed sets: never a text that a
client sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram

from mora_launch.tasks.catalog import TASKS
from mora_launch.telemetry import spans

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_QUEUE_SECONDS = (0.001, 0.003, *_SECONDS)
FrontStage = Literal["read", "prompt", "encode"]  # what the front does itself; the other stages are capabilities
FinishedReason = Literal["completed", "failed", "cancelled", "refused"]
PICTURE_KIND = "picture"  # kind of requests for pictures; other kinds are tasks
FRONT = "front"  # in place of an agent's name


class Counters:
    """Counters of one pool. Each pool has its own registry, so that several pools do not share metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept = self.registry
        self.batch_size = Histogram(
            "mora_batch_size", "Samples per call", ["capability"], buckets=(1, 2, 4, 8, 16, 32), registry=kept
        )
        self.call_s = Histogram(
            "mora_call_seconds", "From sending a batch to its result", ["capability"], buckets=_SECONDS, registry=kept
        )
        self.request_s = Histogram(
            "mora_request_seconds", "From accepting a request to its answer", ["endpoint"], buckets=_SECONDS,
            registry=kept,
        )  # fmt: skip
        self.num_requests = Counter("mora_requests", "Requests answered", ["endpoint", "status"], registry=kept)
        self.num_cancelled = Counter(
            "mora_cancelled", "Samples whose request was taken back before its end", ["capability"], registry=kept
        )
        self.num_runs_again = Counter("mora_runs_again", "Samples repeated after a server's death", registry=kept)
        self.num_ended = Counter(
            "mora_request_success", "Requests that ended, by outcome", ["kind", "finished_reason", "code"],
            registry=kept,
        )  # fmt: skip
        self.end_to_end_s = Histogram(
            "mora_e2e_request_latency_seconds", "From accepting a request to its end", ["kind"], buckets=_SECONDS,
            registry=kept,
        )  # fmt: skip
        self.queue_s = Histogram(
            "mora_request_queue_time_seconds", "Wait for a server, or of a video for its turn", ["stage", "agent"],
            buckets=_QUEUE_SECONDS, registry=kept,
        )  # fmt: skip
        self.stage_s = Histogram(
            "mora_stage_seconds", "Work on a stage, without waiting for it", ["stage", "agent"], buckets=_SECONDS,
            registry=kept,
        )  # fmt: skip

    def start_at_zero(self, capabilities: Iterable[str]) -> None:
        """Show the counters whose labels are known before anything has happened; rates need a first value.

        Args:
            capabilities: of all servers.
        """
        for capability in capabilities:
            self.num_cancelled.labels(capability)
        for kind in (PICTURE_KIND, *TASKS):
            self.num_ended.labels(kind, "completed", "")

    def count_end(self, kind: str, reason: FinishedReason, code: str, spent_s: float) -> None:
        """Count a request that has ended.

        Args:
            kind: `picture`, the name of a task, or `video` where the task is not known.
            code: why it did not complete: the `code` of a `MoraError`; else empty.
        """
        self.num_ended.labels(kind, reason, code).inc()
        if reason != "refused":
            self.end_to_end_s.labels(kind).observe(spent_s)

    @contextmanager
    def timing(self, stage: FrontStage) -> Iterator[None]:
        """Observe the time of a stage that this process computes itself, as a metric and as a span."""
        started_s = time.monotonic()
        try:
            with spans.span(stage):
                yield
        finally:
            self.stage_s.labels(stage, FRONT).observe(time.monotonic() - started_s)
