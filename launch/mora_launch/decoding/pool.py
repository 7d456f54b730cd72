"""The decoders of a server and their queue: fair among tenants, cheap work of a tenant first.

One decoder takes only small pictures.

The decoders are processes, so one that hangs, crashes or is taken over by its input costs a single job.
"""

from __future__ import annotations

import logging
import threading
import time

from mora_runtime.errors import MoraError, RoleFailed

from mora_launch.decoding.job import DecodeJob
from mora_launch.decoding.worker_process import WorkerProcess
from mora_launch.limits import MAX_WAIT_S
from mora_launch.serving.fair_share import FairShare

log = logging.getLogger(__name__)
_JOIN_S = 10.0
_IDLE_TICK_S = 1.0


class DecodePool:
    """Decoders that start with the first job. The tenant for which they have worked the shortest time is next.

    Args:
        num_decoders: number of decoders for work of any size, in addition to the one for small pictures.
    """

    def __init__(self, num_decoders: int = 2) -> None:
        self._waiting: list[DecodeJob] = []  # in order of arrival
        self._share = FairShare()  # by seconds of a decoder
        self._changed = threading.Condition(threading.RLock())
        self._is_closed = False
        self._decoders = [_Decoder(self, only_small=True)]
        self._decoders += [_Decoder(self, only_small=False) for _ in range(num_decoders)]

    @property
    def pids(self) -> list[int]:
        """Process ids of the running decoders."""
        return [decoder.process.pid for decoder in self._decoders if decoder.process.pid is not None]

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        """Start the decoders, so that the first job need not wait for them; otherwise `submit` starts them."""
        with self._changed:
            for decoder in self._decoders:
                if not decoder.is_alive() and not self._is_closed:
                    decoder.start()

    def submit(self, job: DecodeJob, tenant: str = "") -> None:
        """Queue a job; its future gets the result.

        Args:
            tenant: on whose behalf it is decoded.
        """
        job.tenant = tenant
        self.start()
        with self._changed:
            if self._is_closed:
                job.fail(RoleFailed("the server is being stopped"))
                return
            if not any(other.tenant == tenant for other in self._waiting):
                self._share.arrive(tenant)
            self._waiting.append(job)
            self._changed.notify_all()

    def take(self, *, only_small: bool) -> DecodeJob | None:
        """Wait for the next job; None once the pool is closed."""
        with self._changed:
            while not self._is_closed:
                self._waiting = [job for job in self._waiting if not job.cancelled.is_set()]
                fitting = [job for job in self._waiting if job.is_small or not only_small]
                if fitting:
                    job = self._next(fitting)
                    self._waiting.remove(job)
                    self._share.charge(job.tenant, job.expected_s)
                    return job
                self._changed.wait(_IDLE_TICK_S)
        return None

    def spent(self, job: DecodeJob, spent_s: float) -> None:
        """Correct what a job's tenant was charged, because a file does not tell how long its decoding takes."""
        with self._changed:
            self._share.refund(job.tenant, job.expected_s - spent_s)

    def _next(self, jobs: list[DecodeJob]) -> DecodeJob:
        """Return the job that is next of some, which are in order of arrival."""
        tenant = min(jobs, key=lambda job: self._share.clock(job.tenant)).tenant
        return _next_of_one([job for job in jobs if job.tenant == tenant])

    def close(self) -> None:
        """End all decoders; the remaining jobs fail."""
        with self._changed:
            self._is_closed = True
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
        for job in left:
            job.fail(RoleFailed("the server is being stopped"))
        for decoder in self._decoders:
            decoder.end()


def _next_of_one(jobs: list[DecodeJob]) -> DecodeJob:
    """Return the oldest job of a tenant if it has waited too long, else the cheapest. Jobs are in order of arrival."""
    is_late = time.monotonic() - jobs[0].since_s > MAX_WAIT_S
    return jobs[0] if is_late else min(jobs, key=lambda each: each.cost)


class _Decoder(threading.Thread):
    """A thread that feeds one decoder process."""

    def __init__(self, pool: DecodePool, *, only_small: bool) -> None:
        super().__init__(name="decodes small pictures" if only_small else "decodes", daemon=True)
        self._pool = pool
        self._only_small = only_small
        self._job: DecodeJob | None = None
        self.process = WorkerProcess()

    def run(self) -> None:
        try:
            self.process.start()
            while (job := self._pool.take(only_small=self._only_small)) is not None:
                self._job = job
                self._decode(job)
        finally:
            self.process.kill()

    def _decode(self, job: DecodeJob) -> None:
        begun_s = time.monotonic()
        try:
            job.finish(self.process.decode(job))
        except MoraError as error:
            job.fail(error)
        except Exception as error:
            # one job must not end the thread; a decoder that answered nonsense has already been killed
            log.exception("a decoder failed")
            job.fail(RoleFailed(f"{job.whose}: its decoder failed ({type(error).__name__})"))
        finally:
            self._pool.spent(job, time.monotonic() - begun_s)

    def end(self) -> None:
        """Cancel the current job, and wait until the process has ended."""
        if self._job is not None:
            self._job.cancelled.set()
        if self.is_alive():
            self.join(_JOIN_S)
