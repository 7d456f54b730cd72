"""Prometheus metrics of the queue and the servers, for `/metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


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
