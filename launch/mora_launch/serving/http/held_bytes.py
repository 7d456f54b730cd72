"""A limit on the memory of requests, checked before they allocate it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from mora_launch.serving.http.admission import Quantity, TooBusy

_RETRY_AFTER_S = 10


class HeldBytes:
    """A memory limit that all requests share.

    Args:
        most_nbytes: limit of all requests together.
        tenants: for whom a part of the limit is reserved.
    """

    def __init__(self, most_nbytes: int, tenants: Collection[str] = ()) -> None:
        self._most_nbytes = most_nbytes
        self._tenants = tenants
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()  # bytes by tenant

    @property
    def nbytes(self) -> int:
        """Bytes that are reserved."""
        return self._held.total()

    @contextmanager
    def held(self, nbytes: int, tenant: str = "") -> Iterator[None]:
        """Reserve `nbytes` inside the block. Raises: TooBusy: they exceed the limit."""
        with self._lock:
            self._check(self._held, nbytes, tenant, "pictures and videos that are being decoded already need up to")
            self._held[tenant] += nbytes
        try:
            yield
        finally:
            with self._lock:
                self._held[tenant] -= nbytes

    def check_room(self, nbytes: int, tenant: str, others: Iterable[tuple[str, int]]) -> None:
        """Check that there is room for the decoded files of a job.

        Args:
            others: tenant and bytes of each job that waits.

        Raises:
            TooBusy: all jobs, and what is reserved, exceed the limit.
        """
        with self._lock:
            held = self._held.copy()
        for other, other_nbytes in others:
            held[other] += other_nbytes
        self._check(held, nbytes, tenant, "pictures and videos of waiting jobs already take")

    def _check(self, held: Counter[str], nbytes: int, tenant: str, what: str) -> None:
        together = Quantity(self._most_nbytes, self._tenants)
        for each, each_nbytes in held.items():
            together.add(each, each_nbytes)
        # alone, a request may also use the parts of others, or one that is larger than the rest could never be served
        most = together.limit_for(tenant) if together.used else self._most_nbytes
        if together.used + nbytes > most:
            told = f"{what} {together.used:.0f} bytes, this request would add {nbytes}, the limit is {most:.0f}"
            raise TooBusy(f"{told}; retry later", _RETRY_AFTER_S)
