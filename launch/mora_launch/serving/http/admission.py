"""Limits the requests in progress, by number and by cost; clients of further ones are told when to retry."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn

from mora_runtime.errors import MoraError

from mora_launch.serving.throughput import Throughput
from mora_launch.tasks.errors import BadRequest

_UNKNOWN_RETRY_S = 10  # while nothing has ended yet, from which a time could be estimated
_MOST_RETRY_S = 600
_ROUNDING = 1e-9  # of sums of many costs


class TooBusy(MoraError):
    """A request was refused for now.

    Attributes:
        retry_after_s: estimated time until there is room.
    """

    code = "too_busy"

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Quantity:
    """A quantity that tenants share up to a limit; half of it is reserved for them in equal parts.

    A tenant's part is never taken by others, so a tenant with many requests cannot shut the others out. Without tenants
    nothing is reserved.
    """

    def __init__(self, limit: float, tenants: Collection[str]) -> None:
        self.limit = limit * (1 + _ROUNDING)
        self._tenants = tenants
        self._part = limit / (2 * len(tenants)) if len(tenants) > 1 and limit < math.inf else 0.0
        self._by_tenant: defaultdict[str, float] = defaultdict(float)
        self.used = 0.0

    @property
    def most_of_one(self) -> float:
        """The most that one tenant can ever have."""
        return self.limit - self._part * max(0, len(self._tenants) - 1)

    def limit_for(self, tenant: str) -> float:
        """Return the limit of all together while a tenant asks for more: without what is reserved for the others."""
        return self.limit - sum(
            max(0.0, self._part - self._by_tenant[other]) for other in self._tenants if other != tenant
        )

    def add(self, tenant: str, amount: float) -> None:
        """Use more; less with a negative amount."""
        self.used += amount
        self._by_tenant[tenant] += amount

    def clear(self) -> None:
        """Use none: the rounding of many sums must not remain."""
        self.used = 0.0
        self._by_tenant.clear()


class Admission:
    """Counts requests from acceptance to answer.

    Args:
        what: name of what is counted, for messages.
        max_cost: of all together, in megapixel-steps.
        tenants: for whom a part of both limits is reserved.
    """

    def __init__(
        self, max_waiting: int, what: str = "requests", *, max_cost: float = math.inf, tenants: Collection[str] = ()
    ) -> None:
        self._what = what
        self._number = Quantity(max_waiting, tenants if max_waiting > 1 else ())  # a single place has no parts
        self._cost = Quantity(max_cost, tenants)
        self._throughput = Throughput()
        self._lock = threading.Lock()

    @property
    def num_admitted(self) -> int:
        """Number of requests in progress."""
        return round(self._number.used)

    def check_fits(self, cost: float, field: str) -> None:
        """Refuse a request that can never be accepted.

        Args:
            field: that makes it smaller, for the message.

        Raises:
            BadRequest: its cost alone is too much.
        """
        most = self._cost.most_of_one
        if cost > most:
            raise BadRequest(
                field,
                f"the request costs {cost:.4g} megapixel-steps (frames x pixels x denoising steps), expected at most "
                f"{most:.4g}; ask for less, or raise serving.max_waiting_cost",
            )

    def check_room(self, tenant: str) -> None:
        """Refuse a request before its files are decoded, while its cost is not known. Raises: TooBusy."""
        with self._lock:
            self._check_number(tenant)

    def _check_number(self, tenant: str) -> None:
        most = self._number.limit_for(tenant)
        if self._number.used + 1 > most:
            self._refuse(f"{self.num_admitted} {self._what} are in progress, the limit is {most:.0f}", 0.0)

    def enter(self, tenant: str = "", cost: float = 0.0) -> None:
        """Count one more request. Raises: TooBusy: a limit is reached."""
        with self._lock:
            self._check_number(tenant)
            excess = self._cost.used + cost - self._cost.limit_for(tenant)
            if excess > 0 and self.num_admitted > 0:
                told = f"{self._what} of {self._cost.used:.4g} megapixel-steps are in progress, this one has {cost:.4g}"
                self._refuse(f"{told}, the limit is {self._cost.limit_for(tenant):.4g}", excess)
            self._throughput.watch(is_busy=True, now_s=time.monotonic())
            self._number.add(tenant, 1)
            self._cost.add(tenant, cost)

    def _refuse(self, told: str, excess: float) -> NoReturn:
        mean = self._cost.used / max(1, self.num_admitted)
        wait_s = self._throughput.time_for(max(excess, mean))
        retry_s = _UNKNOWN_RETRY_S if wait_s is None else max(1, min(_MOST_RETRY_S, math.ceil(wait_s)))
        raise TooBusy(f"{told}; retry later", retry_s)

    def leave(self, tenant: str = "", cost: float = 0.0, *, is_done: bool = True) -> None:
        """Count one request less, after its answer.

        Args:
            is_done: whether the work was done; it then tells how fast the servers are.
        """
        with self._lock:
            self._number.add(tenant, -1)
            self._cost.add(tenant, -cost)
            if not self.num_admitted:
                self._cost.clear()
            if is_done:
                self._throughput.did(cost)
            self._throughput.watch(is_busy=self.num_admitted > 0, now_s=time.monotonic())

    @contextmanager
    def place(self, tenant: str, cost: float) -> Iterator[None]:
        """Count a request inside the block. Raises: TooBusy: a limit is reached."""
        self.enter(tenant, cost)
        is_done = False
        try:
            yield
            is_done = True
        finally:
            self.leave(tenant, cost, is_done=is_done)
