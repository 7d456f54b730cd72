"""The slots of the video jobs that may work at the same time, given fairly among tenants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mora_runtime.errors import Cancelled

from mora_launch.serving.fair_share import FairShare
from mora_launch.serving.terms import Terms

_TICK_S = 0.2


@dataclass(eq=False)
class _Waiting:
    """A job that waits for a slot."""

    terms: Terms
    cost: float


class JobSlots:
    """Slots for which jobs wait: the tenant that has had the least is next, and its job by priority and arrival."""

    def __init__(self, num_slots: int) -> None:
        self._num_free = num_slots
        self._share = FairShare()
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()

    @contextmanager
    def occupied(self, terms: Terms, cost: float, is_cancelled: Callable[[], bool]) -> Iterator[None]:
        """Wait for a slot, and occupy it inside the block.

        Args:
            cost: of the whole job.

        Raises:
            Cancelled: the job was cancelled while it waited.
        """
        self._wait(_Waiting(terms, cost), is_cancelled)
        try:
            yield
        finally:
            with self._changed:
                self._num_free += 1
                self._changed.notify_all()

    def _wait(self, job: _Waiting, is_cancelled: Callable[[], bool]) -> None:
        with self._changed:
            if not any(other.terms.tenant == job.terms.tenant for other in self._waiting):
                self._share.arrive(job.terms.tenant)
            self._waiting.append(job)
            try:
                while not self._changed.wait_for(lambda: self._num_free > 0 and self._first() is job, _TICK_S):
                    if is_cancelled():
                        raise Cancelled("the task was cancelled")
                self._num_free -= 1
                self._share.charge(job.terms.tenant, job.cost)
            finally:
                self._waiting.remove(job)
                self._changed.notify_all()  # another job is first now

    def _first(self) -> _Waiting:
        return min(self._waiting, key=lambda job: (self._share.clock(job.terms.tenant), job.terms.priority))
