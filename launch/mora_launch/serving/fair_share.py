"""Shares of a service by cost: which tenant is served next."""

from __future__ import annotations


class FairShare:
    """Start-time fair queueing.

    Each tenant has a clock, which advances by the cost of what the tenant is served; the earliest clock is next. A
    tenant that comes back starts at the time of the service: it neither saves up the time in which it asked for
    nothing, nor waits for what others asked for before it.
    """

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}
        self._now = 0.0  # the clock of the tenant that was served last, before it was served

    def copy(self) -> FairShare:
        """Return a copy, to try out an order."""
        made = FairShare()
        made._clocks, made._now = dict(self._clocks), self._now
        return made

    def arrive(self, tenant: str) -> None:
        """Take in a tenant that had nothing waiting."""
        self._clocks[tenant] = max(self._clocks.get(tenant, 0.0), self._now)

    def clock(self, tenant: str) -> float:
        """Return the tenant's clock: of those that wait, the one with the earliest is next."""
        return self._clocks.get(tenant, self._now)

    def charge(self, tenant: str, cost: float) -> None:
        """Count what a tenant is served."""
        started = self.clock(tenant)
        self._now = max(self._now, started)
        self._clocks[tenant] = started + cost

    def refund(self, tenant: str, cost: float) -> None:
        """Take back a charge for work that was not done."""
        self._clocks[tenant] = self.clock(tenant) - cost
