"""Work for the servers, in order of arrival, handed out in batches of compatible samples."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, InvalidStateError
from typing import Any

import numpy as np
from mora_runtime.errors import Cancelled

from mora_launch.limits import MAX_BATCH_TEXT_NBYTES

Step = Callable[[int, int], None]


class Work:
    """One sample of one capability: a picture, a clip.

    Args:
        sample: arguments of this sample, by the plural names of the capability: `prompts`, `seeds`, `images`, ...
        shared: arguments that are equal for all samples of a batch.
        on_step: called with (step, number of steps) by the thread that feeds the server.
    """

    def __init__(
        self, capability: str, sample: Mapping[str, Any], shared: Mapping[str, Any], on_step: Step | None = None
    ) -> None:
        self.capability = capability
        self.sample = dict(sample)
        self.shared = dict(shared)
        self.on_step = on_step
        self.future: Future[Any] = Future()
        self.num_runs = 0
        self._cancelled = threading.Event()
        shapes = tuple((name, v.shape) for name, v in sorted(sample.items()) if isinstance(v, np.ndarray))
        self.key = (capability, tuple(sorted(self.shared.items())), shapes)

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


class WorkQueue:
    """The queue that all threads share. It is unbounded, because later stages of admitted tasks must always fit; the
    admission of requests limits it.

    Args:
        max_batch: largest batch by capability; 1 by default.
        gather_s: how long an incomplete batch waits for more work, so that the first request of a burst is not alone.
    """

    def __init__(self, max_batch: Mapping[str, int], gather_s: float = 0.0) -> None:
        self._max_batch = max_batch
        self._gather_s = gather_s
        self._waiting: list[Work] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: Work) -> None:
        """Append work."""
        with self._changed:
            self._waiting.append(work)
            self._changed.notify_all()

    def put_back(self, works: Collection[Work]) -> None:
        """Put work that a dead server had taken back to the front."""
        with self._changed:
            self._waiting[:0] = works
            self._changed.notify_all()

    def take(self, capabilities: Collection[str], *, timeout_s: float, only_full: bool = False) -> list[Work]:
        """Take the next work of these capabilities with all that fits into its batch; empty after the timeout.

        Args:
            only_full: take only a full batch.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                batch = self._next(capabilities) if only_full else self._gathered(capabilities)
                if batch and not (only_full and len(batch) < self._limit(batch[0])):
                    taken = set(map(id, batch))
                    self._waiting = [work for work in self._waiting if id(work) not in taken]
                    return batch
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return []
                self._changed.wait(remaining_s)

    def _gathered(self, capabilities: Collection[str]) -> list[Work]:
        """Return the next batch; wait a moment for more work if it is not full."""
        batch = self._next(capabilities)
        if batch and len(batch) < self._limit(batch[0]):
            self._changed.wait_for(lambda: self._is_full(self._next(capabilities)), self._gather_s)
            batch = self._next(capabilities)  # another server may have taken some
        return batch

    def _is_full(self, batch: list[Work]) -> bool:
        return bool(batch) and len(batch) >= self._limit(batch[0])

    def _limit(self, work: Work) -> int:
        return self._max_batch.get(work.capability, 1)

    def _next(self, capabilities: Collection[str]) -> list[Work]:
        self._waiting = [work for work in self._waiting if not work.is_cancelled]
        first = next((work for work in self._waiting if work.capability in capabilities), None)
        if first is None:
            return []
        batch: list[Work] = []
        nbytes = 0
        for work in self._waiting:
            if work.key == first.key and len(batch) < self._limit(first):
                nbytes += len(str(work.sample.get("prompts", "")).encode())
                if batch and nbytes > MAX_BATCH_TEXT_NBYTES:
                    break
                batch.append(work)
        return batch

    def fail_all(self, capabilities: Collection[str], error: Exception) -> None:
        """Fail all waiting work of these capabilities."""
        with self._changed:
            lost = [work for work in self._waiting if work.capability in capabilities]
            self._waiting = [work for work in self._waiting if work.capability not in capabilities]
        for work in lost:
            work.fail(error)
