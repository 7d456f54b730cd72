"""How fast the servers work, measured while there is work."""

from __future__ import annotations

_HORIZON_S = 120.0  # of busy time; older work counts less


class Throughput:
    """Cost that was done in a second, of the last minutes in which there was work."""

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._done = 0.0
        self._since_s: float | None = None  # on CLOCK_MONOTONIC, while there is work

    def watch(self, *, is_busy: bool, now_s: float) -> None:
        """Take in whether there is work from now on."""
        if self._since_s is not None:
            self._busy_s += now_s - self._since_s
        self._since_s = now_s if is_busy else None
        if self._busy_s > _HORIZON_S:
            share = _HORIZON_S / 2 / self._busy_s
            self._busy_s, self._done = self._busy_s * share, self._done * share

    def did(self, cost: float) -> None:
        """Take in work that was done."""
        self._done += cost

    def time_for(self, cost: float) -> float | None:
        """Estimate the seconds in which so much is done; None if nothing was done yet."""
        return cost * self._busy_s / self._done if self._done > 0 and self._busy_s > 0 else None
