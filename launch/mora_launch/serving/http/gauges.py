"""Metrics whose values are read when they are requested: what waits and runs, and the state of each server."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mora_launch.serving.feeding.server_worker import ServerWorker
from mora_launch.serving.http.front import Front
from mora_launch.serving.http.jobs.video_jobs import VideoJobs

_WAYS = ("inline", "shared", "device", "staged")


class PoolGauges(Collector):
    """Gauges of the queue, the jobs and the servers."""

    def __init__(self, front: Front, jobs: VideoJobs) -> None:
        self._front = front
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        """Collect what waits and runs, and each server's memory, tensors and time."""
        pool = self._front.pool
        yield GaugeMetricFamily("mora_queue_length", "Samples waiting for a server", len(pool.queue))
        yield GaugeMetricFamily("mora_requests_under_way", "Requests admitted", self._front.admission.num_admitted)
        yield GaugeMetricFamily("mora_reviews_under_way", "Video jobs under review", self._front.reviews.num_admitted)
        yield from self._running_and_waiting()
        yield from _memory(pool.workers)
        yield from _tensors(pool.workers)
        yield _busy(pool.workers)

    def _running_and_waiting(self) -> Iterator[Metric]:
        statuses = [job.status for job in self._jobs.all()]
        numbers = {
            "running": {
                "sample": sum(worker.num_in_flight for worker in self._front.pool.workers),
                "video": statuses.count("in_progress"),
            },
            "waiting": {"sample": len(self._front.pool.queue), "video": statuses.count("queued")},
        }
        for state, counts in numbers.items():
            gauge = GaugeMetricFamily(f"mora_num_requests_{state}", f"Samples and videos {state}", labels=["unit"])
            for unit, count in counts.items():
                gauge.add_metric([unit], count)
            yield gauge


def _memory(workers: list[ServerWorker]) -> Iterator[Metric]:
    up = GaugeMetricFamily("mora_server_up", "1 while the server is connected", labels=["server"])
    gauges = {
        "memory_nbytes": GaugeMetricFamily(
            "mora_server_memory_bytes", "Allocated on the device; resident on the CPU", labels=["server"]
        ),
        "arena_nbytes": GaugeMetricFamily(
            "mora_server_plane_bytes", "Shared memory of the server's tensors", labels=["server"]
        ),
        "spilled_nbytes": GaugeMetricFamily("mora_server_spilled_bytes", "Beyond the pool", labels=["server"]),
        "num_slots": GaugeMetricFamily("mora_server_slots", "Tensors in shared memory", labels=["server"]),
    }
    for worker in workers:
        up.add_metric([worker.role], float(worker.is_connected))
        for name, gauge in gauges.items():
            gauge.add_metric([worker.role], worker.vitals.get(name, 0))
    yield from (up, *gauges.values())


def _tensors(workers: list[ServerWorker]) -> Iterator[Metric]:
    sent = CounterMetricFamily("mora_server_tensors", "Tensors sent, by their way", labels=["server", "way"])
    nbytes = CounterMetricFamily("mora_server_tensor_bytes", "Bytes of tensors sent, by way", labels=["server", "way"])
    for worker in workers:
        for way in _WAYS:
            sent.add_metric([worker.role, way], worker.vitals.get(f"num_{way}", 0))
            nbytes.add_metric([worker.role, way], worker.vitals.get(f"{way}_nbytes", 0))
    yield from (sent, nbytes)


def _busy(workers: list[ServerWorker]) -> Metric:
    busy = CounterMetricFamily(
        "mora_server_busy_seconds",
        "Time of calls: denoising and what is before it; decoding",
        labels=["server", "part"],
    )
    for worker in workers:
        busy.add_metric([worker.role, "denoise"], worker.vitals.get("in_steps_ns", 0) / 1e9)
        busy.add_metric([worker.role, "decode"], worker.vitals.get("after_steps_ns", 0) / 1e9)
    return busy
