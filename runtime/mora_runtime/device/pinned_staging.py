"""Copies between device and host segments at the speed of the bus, for processes that cannot share device memory.

The tensor store does not call it yet. The owner copies `to_host` into slots of its arena, waits once for all tensors of
a message and sends it; the reader copies `to_device` out of the segment that it has mapped.
"""

from __future__ import annotations

import torch

from mora_runtime.device.cuda_ipc import Device
from mora_runtime.device.device_pool import Afterwards
from mora_runtime.errors import DeadlineExceeded


class PinnedStaging:
    """Host segments registered with CUDA, and copies between them and one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._registered: list[tuple[int, memoryview]] = []  # (address, buffer that keeps it mapped)
        self._reading: Afterwards[torch.Tensor] = Afterwards(device)

    def register(self, buffer: memoryview) -> None:
        """Pin a whole segment, once; it stays mapped until `close`.

        Raises:
            DeviceFailed: the segment stays pageable, and copies are slower.
        """
        address = torch.frombuffer(buffer, dtype=torch.uint8).data_ptr()
        self.device.pin(address, buffer.nbytes)
        self._registered.append((address, buffer))

    def to_host(self, tensor: torch.Tensor, window: torch.Tensor) -> None:
        """Queue a copy into a slot's view on the current stream; it is complete after `wait`."""
        window.copy_(tensor.detach(), non_blocking=True)

    def wait(self, *, deadline_s: float) -> None:
        """Wait until everything queued on the current stream has run.

        Raises:
            DeadlineExceeded
        """
        event = self.device.new_event()
        try:
            self.device.record(event, self.device.stream())
            if not any(self.device.wait(event, deadline_s)):
                raise DeadlineExceeded(f"copies from {self.device.torch_device} did not end within {deadline_s:.0f} s")
        finally:
            self.device.destroy(event)

    def to_device(self, window: torch.Tensor) -> torch.Tensor:
        """Queue a copy of a slot's view to the device; the view, and so its lease, lives until `collect` drops it."""
        copy = window.to(self.device.torch_device, non_blocking=True)
        self._reading.append(self.device.stream(), window)
        return copy

    def collect(self) -> int:
        """Drop the views whose copies have run and return their number. Call it before every message and when idle."""
        return len(self._reading.collect())

    def close(self, *, deadline_s: float) -> None:
        """Unpin all segments, after all copies.

        Raises:
            DeadlineExceeded
        """
        self.wait(deadline_s=deadline_s)
        self._reading.collect()
        self._reading.close()
        while self._registered:
            self.device.unpin(self._registered.pop()[0])
