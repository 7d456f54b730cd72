"""How long a process looks for its next message before it sleeps.

Waking a sleeping process takes longer than a small call, and on a virtual machine, whose idle cores go back to the
host, many times longer. So a process looks for as long as its latest waits took, where they were short; where waits are
long, looking would only keep the core from others, and it sleeps nearly at once.

Between two looks it yields. The kernel likes to wake a process on the core of the one that woke it, which must not spin
where the other is to compute; and two that take turns on one core stay there while the next idles. Who sleeps is woken
on an idle core, so a process that had to share its core sleeps once.
"""

from __future__ import annotations

import os
import time

from mora_runtime.limits import LONGEST_SPIN_NS, SHORTEST_SPIN_NS

_SHARED_NS = 15_000  # a yield takes as long only where somebody else has run meanwhile


class Spin:
    """The time to look, which follows the waits that have been.

    Args:
        longest_ns: 0 never looks.
    """

    __slots__ = ("_longest_ns", "ns")

    def __init__(self, longest_ns: int) -> None:
        self._longest_ns = longest_ns
        self.ns = longest_ns

    def give_way(self) -> None:
        """Let others run between two looks; where one did, look no more this time and the next."""
        before_ns = time.monotonic_ns()
        os.sched_yield()
        if time.monotonic_ns() - before_ns > _SHARED_NS:
            self.ns = 0

    def waited(self, ns: int) -> None:
        """A wait of this length has ended."""
        if ns <= self._longest_ns:
            self.ns = min(self._longest_ns, max(self.ns, 2 * ns))
        else:
            self.ns = min(self._longest_ns, max(SHORTEST_SPIN_NS, self.ns // 2))


def default_longest_ns() -> int:
    """Where nobody says otherwise; nothing where this process may use one core alone, which others then need."""
    return LONGEST_SPIN_NS if len(os.sched_getaffinity(0)) > 1 else 0
