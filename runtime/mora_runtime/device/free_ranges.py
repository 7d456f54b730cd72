"""Which bytes of a device pool are free. Used by `device_pool.DevicePool`; works on offsets, not on memory."""

from __future__ import annotations


class FreeRanges:
    """Free bytes of a pool: best fit, adjacent ranges merged, so freed ranges do not stay fragmented."""

    def __init__(self, nbytes: int) -> None:
        self._sizes = {0: nbytes}  # by start
        self._starts = {nbytes: 0}  # by end

    def take(self, nbytes: int) -> int | None:
        """Take `nbytes` and return their start, or None when no range is that long."""
        fitting = [(size, start) for start, size in self._sizes.items() if size >= nbytes]
        if not fitting:
            return None
        size, start = min(fitting)
        del self._sizes[start], self._starts[start + size]
        if size > nbytes:
            self._add(start + nbytes, size - nbytes)
        return start

    def give(self, start: int, nbytes: int) -> None:
        """Free a range that `take` returned."""
        end = start + nbytes
        if end in self._sizes:
            end += self._sizes.pop(end)
            del self._starts[end]
        if start in self._starts:
            start = self._starts.pop(start)
        self._add(start, end - start)

    def _add(self, start: int, nbytes: int) -> None:
        self._sizes[start] = nbytes
        self._starts[start + nbytes] = start
