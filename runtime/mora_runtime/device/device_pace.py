"""Lets an agent queue at most one step ahead of its GPU, so that a cancelled call leaves little work behind.

The statements of a step only queue its work. Without a wait an agent would report steps that the GPU has not begun, and
notice a cancellation when the work of many steps is already queued.
"""

from __future__ import annotations

import torch


class DevicePace:
    """Waits at the end of each step for the one before.

    Args:
        device: that the agents compute on; on the CPU no step is ahead.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._last: torch.cuda.Event | None = None

    def keep(self) -> None:
        """Wait until all work is done that had been queued at the last call of this method."""
        if not self._is_cuda:
            return
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        if self._last is not None:
            self._last.synchronize()
        self._last = event
