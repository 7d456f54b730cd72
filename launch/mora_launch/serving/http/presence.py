"""Who has a review open: the names that pages send when they look at it, for some seconds."""

from __future__ import annotations

import time

from mora_launch.limits import MAX_NUM_REVIEWERS

_STAYS_S = 6.0  # a page looks every second; a hidden one more rarely


class Presence:
    """The reviewers of all jobs. Only the thread of the endpoints uses it."""

    def __init__(self) -> None:
        self._seen_s: dict[str, dict[str, float]] = {}  # job -> name -> when it last looked

    def look(self, job: str, name: str | None) -> list[str]:
        """Record that a reviewer looks at a job, if one is named; return the names of all who do, in order."""
        now_s = time.monotonic()
        if name:
            self._seen_s.setdefault(job, {})[name] = now_s
        for other, names in list(self._seen_s.items()):
            latest = sorted(names.items(), key=lambda entry: entry[1])[-MAX_NUM_REVIEWERS:]
            recent = {each: at_s for each, at_s in latest if now_s - at_s < _STAYS_S}
            if recent:
                self._seen_s[other] = recent
            else:
                del self._seen_s[other]
        return sorted(self._seen_s.get(job, {}))
