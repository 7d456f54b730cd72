"""The limit on how often dead roles are restarted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from mora_runtime.schema import Settings
from pydantic import Field


class RestartSettings(Settings):
    """Restarts of a job whose roles die or freeze: at most `max_num` within any `within_s` seconds."""

    max_num: int = Field(default=3, ge=0)  # 0 = the first death ends the job
    within_s: float = Field(default=600.0, gt=0.0)  # the time in which restarts are counted
    # a role without a sign of life for so long is killed; None never kills it
    frozen_after_s: float | None = Field(default=10.0, ge=3.0)


class RestartBudget:
    """Counts restarts, so that a job whose roles keep dying ends.

    Args:
        now_s: the clock.
    """

    def __init__(self, settings: RestartSettings, now_s: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._now_s = now_s
        self._taken_s: deque[float] = deque()

    def take(self) -> bool:
        """Count one more restart; False if the budget is used up."""
        now_s = self._now_s()
        while self._taken_s and self._taken_s[0] <= now_s - self._settings.within_s:
            self._taken_s.popleft()
        if len(self._taken_s) >= self._settings.max_num:
            return False
        self._taken_s.append(now_s)
        return True

    def __str__(self) -> str:
        return f"{len(self._taken_s)} of {self._settings.max_num} restarts in {self._settings.within_s:.0f} s"
