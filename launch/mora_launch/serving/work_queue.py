"""Work for the servers, handed out in batches of compatible samples: fairly among tenants, by priority within one."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from typing import Any

import numpy as np
from mora_data.reading.fitting import Clip
from mora_runtime.errors import Cancelled, RoleFailed

from mora_launch.limits import MAX_BATCH_TEXT_NBYTES
from mora_launch.serving.fair_share import FairShare
from mora_launch.serving.feeding.held_sample import HeldSample
from mora_launch.serving.terms import DEFAULT_TERMS, Terms
from mora_launch.telemetry import spans

Step = Callable[[int, int], None]
TakePart = Callable[[int, Clip], None]
_ARRAYS = (np.ndarray, HeldSample)


class Work:
    """One sample of one capability: a picture, a clip.

    Args:
        sample: arguments of this sample, by the plural names of the capability: `prompts`, `seeds`, `images`, ...
        shared: arguments that are equal for all samples of a batch.
        on_step: called with (step, number of steps) by the thread that feeds the server.
        lane: whose servers do it; tenants share each lane by itself.
        cost: in megapixel-steps, or any other unit that all work of the lane has.
        is_held: let the result be a `HeldSample` if it can.
        on_part: called by the same thread with the index of a frame and the frames that are made from there on, before
            the result, if the server sends them.
    """

    def __init__(
        self,
        capability: str,
        sample: Mapping[str, Any],
        shared: Mapping[str, Any],
        on_step: Step | None = None,
        *,
        terms: Terms = DEFAULT_TERMS,
        lane: str = "",
        cost: float = 1.0,
        is_held: bool = False,
        on_part: TakePart | None = None,
    ) -> None:
        self.capability = capability
        self.sample = dict(sample)
        self.shared = dict(shared)
        self.on_step = on_step
        self.terms = terms
        self.lane = lane
        self.cost = cost
        self.is_held = is_held
        self.on_part = on_part
        self.arrival = -1  # its number in the queue, from its first `put`
        self.future: Future[Any] = Future()
        self.num_runs = 0
        self.created_ns = time.monotonic_ns()
        self.span = spans.current.get()  # of the request or task that it is part of
        self._cancelled = threading.Event()
        shapes = tuple((name, v.shape) for name, v in sorted(sample.items()) if isinstance(v, _ARRAYS))
        self.key = (capability, terms.lora, tuple(sorted(self.shared.items())), shapes)

    def cancel(self) -> None:
        """Give up the result: the work leaves the queue, or its batch within one denoising step."""
        self._cancelled.set()
        self.fail(Cancelled("the request was cancelled"))

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set() or self.future.cancelled()

    def finish(self, result: Any) -> None:
        """Set the result, unless the work was cancelled."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Set an error as the result, unless the work was cancelled."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


class ServerStopped(RoleFailed):
    """Work was not done when the servers ended."""

    code = "server_stopped"

    def __init__(self, text: str = "the servers are being stopped") -> None:
        super().__init__(text)


class WorkQueue:
    """The queue that all threads share. It is unbounded, because later stages of admitted tasks must always fit; the
    admission of requests limits it.

    The tenant that has had the least of a lane is next. Its first work by priority and arrival begins the batch, and
    all work that can be in the same batch fills it, in the same order, of whichever tenant it is.

    Args:
        max_batch: largest batch by capability; 1 by default.
        gather_s: how long an incomplete batch waits at most for work that is on its way, so that the first request of a
            burst is not alone.

    Attributes:
        sends_ahead: whether a server that works may have a second batch, which work of other tenants cannot overtake.
    """

    def __init__(self, max_batch: Mapping[str, int], gather_s: float = 0.0) -> None:
        self._max_batch = max_batch
        self._gather_s = gather_s
        self._num_expected = 0
        self.sends_ahead = True
        self._waiting: defaultdict[str, list[Work]] = defaultdict(list)  # by tenant, by priority and arrival
        self._shares: defaultdict[str, FairShare] = defaultdict(FairShare)  # by lane
        self._arrivals = itertools.count()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return sum(map(len, list(self._waiting.values())))

    def expect(self, num_requests: int) -> None:
        """Tell that the work of requests is on its way, or (a negative number) that it has come or will not come."""
        with self._changed:
            self._num_expected += num_requests
            if not self._num_expected:
                self._changed.notify_all()

    def put(self, work: Work) -> None:
        """Add work behind what its tenant has of the same priority."""
        with self._changed:
            self._insert(work)
            self._changed.notify_all()

    def put_back(self, works: Collection[Work]) -> None:
        """Put work that a dead server had taken back to its place."""
        with self._changed:
            for work in works:
                self._insert(work)
                self._shares[work.lane].refund(work.terms.tenant, work.cost)
            self._changed.notify_all()

    def _insert(self, work: Work) -> None:
        tenant = work.terms.tenant
        if not any(other.lane == work.lane for other in self._waiting[tenant]):
            self._shares[work.lane].arrive(tenant)
        if work.arrival < 0:
            work.arrival = next(self._arrivals)
        insort(self._waiting[tenant], work, key=lambda each: (each.terms.priority, each.arrival))

    def take(self, capabilities: Collection[str], *, timeout_s: float, only_full: bool = False) -> list[Work]:
        """Take the next work of these capabilities with all that fits into its batch; empty after the timeout.

        Args:
            only_full: take only a full batch, for a server that works on another one.
        """
        if only_full and not self.sends_ahead:
            return []
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                batch = self._next(capabilities) if only_full else self._gathered(capabilities)
                if batch and not (only_full and len(batch) < self._limit(batch[0])):
                    self._remove(batch)
                    return batch
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return []
                self._changed.wait(remaining_s)

    def _remove(self, batch: list[Work]) -> None:
        taken = set(map(id, batch))
        self._keep(lambda work: id(work) not in taken)
        for work in batch:
            self._shares[work.lane].charge(work.terms.tenant, work.cost)

    def _keep(self, is_kept: Callable[[Work], bool]) -> None:
        for tenant, works in list(self._waiting.items()):
            self._waiting[tenant] = [work for work in works if is_kept(work)]
            if not self._waiting[tenant]:
                del self._waiting[tenant]

    def _gathered(self, capabilities: Collection[str]) -> list[Work]:
        """Return the next batch; wait a moment for more work if it is not full and some is on its way."""
        batch = self._next(capabilities)
        if batch and len(batch) < self._limit(batch[0]) and self._num_expected:
            self._changed.wait_for(
                lambda: not self._num_expected or self._is_full(self._next(capabilities)), self._gather_s
            )
            batch = self._next(capabilities)  # another server may have taken some
        return batch

    def _is_full(self, batch: list[Work]) -> bool:
        return bool(batch) and len(batch) >= self._limit(batch[0])

    def _limit(self, work: Work) -> int:
        return self._max_batch.get(work.capability, 1)

    def _next(self, capabilities: Collection[str]) -> list[Work]:
        self._keep(lambda work: not work.is_cancelled)
        firsts = (
            next((work for work in works if work.capability in capabilities), None) for works in self._waiting.values()
        )
        first = min(
            filter(None, firsts), key=lambda work: self._shares[work.lane].clock(work.terms.tenant), default=None
        )
        return [] if first is None else list(self._batch(first))

    def _batch(self, first: Work) -> Iterator[Work]:
        """Yield the work of a batch that begins with `first`."""
        share = self._shares[first.lane].copy()
        fitting = {tenant: [work for work in works if work.key == first.key] for tenant, works in self._waiting.items()}
        left = self._limit(first)
        nbytes = 0
        while left and (tenants := [tenant for tenant, works in fitting.items() if works]):
            work = fitting[min(tenants, key=share.clock)].pop(0)
            nbytes += len(str(work.sample.get("prompts", "")).encode())
            if work is not first and nbytes > MAX_BATCH_TEXT_NBYTES:
                return
            share.charge(work.terms.tenant, work.cost)
            left -= 1
            yield work

    def fail_all(self, capabilities: Collection[str], error: Exception) -> None:
        """Fail all waiting work of these capabilities."""
        with self._changed:
            lost = [work for works in self._waiting.values() for work in works if work.capability in capabilities]
            self._keep(lambda work: work.capability not in capabilities)
        for work in lost:
            work.fail(error)
