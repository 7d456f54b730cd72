"""How long a process spins for its next message before it sleeps.

Waking a sleeping process takes longer than a small call, and many times longer on a virtual machine, whose idle cores
go back to the host. So a process spins for about as long as its recent waits took, if they were short. If waits are
long, spinning only takes the core from other processes, and the process sleeps nearly at once.

A spinning process yields between looks. The kernel tends to wake a process on the core of its waker, and the waker must
not spin on the core where the other should compute. Two processes that take turns on one core would stay there while
another core idles. The kernel wakes a sleeping process on an idle core, so a process that had to share its core sleeps
once.
"""

from __future__ import annotations

import os
import time

from mora_runtime.limits import LONGEST_SPIN_NS, SHORTEST_SPIN_NS

_SHARED_NS = 15_000  # a yield takes this long only if another process ran on the core meanwhile


class Spin:
    """The time to spin, adapted to recent waits.

    Args:
        longest_ns: upper limit; 0 = never spin.
    """

    __slots__ = ("_longest_ns", "ns")

    def __init__(self, longest_ns: int) -> None:
        self._longest_ns = longest_ns
        self.ns = longest_ns

    def give_way(self) -> None:
        """Yield the core between two looks; if another process ran, end this spin and skip the next one."""
        before_ns = time.monotonic_ns()
        os.sched_yield()
        if time.monotonic_ns() - before_ns > _SHARED_NS:
            self.ns = 0

    def waited(self, ns: int) -> None:
        """Adapt to a wait that took `ns`."""
        if ns <= self._longest_ns:
            self.ns = min(self._longest_ns, max(self.ns, 2 * ns))
        else:
            self.ns = min(self._longest_ns, max(SHORTEST_SPIN_NS, self.ns // 2))


def default_longest_ns() -> int:
    """Default limit: no spinning if the process is confined to one core, which other processes need."""
    return LONGEST_SPIN_NS if len(os.sched_getaffinity(0)) > 1 else 0
