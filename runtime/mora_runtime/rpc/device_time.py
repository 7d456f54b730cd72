"""How long a block of a call takes on the server's device; used by `execution`.

On a GPU the statements of a block only queue its work. A clock that stops at the end of the block would measure the
queueing, and the work would count as part of whatever waits for it next. So two events in the GPU's stream take the
time there. They are read only after the answer's tensors were copied, when the GPU has passed them anyway.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from typing_extensions import Self  # `typing` has it from Python 3.11 on


class DeviceTime:
    """A context manager that measures its block.

    Args:
        device: that the block computes on; on the CPU the block's elapsed time is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._elapsed_ns = 0

    def __enter__(self) -> Self:
        if self._is_cuda:
            self._begin, self._end = (_event() for _ in range(2))
            self._begin.record()
        self._started_ns = time.monotonic_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self._elapsed_ns = time.monotonic_ns() - self._started_ns
        if self._is_cuda:
            self._end.record()

    def ns(self) -> int:
        """The time that the block took; on a GPU this waits until its work is done."""
        if not self._is_cuda:
            return self._elapsed_ns
        self._end.synchronize()
        elapsed_ms: float = self._begin.elapsed_time(self._end)
        return round(elapsed_ms * 1e6)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
