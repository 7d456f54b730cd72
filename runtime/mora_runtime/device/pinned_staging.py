"""Copies between device and host segments at the speed of the bus, for processes that cannot share device memory.

The owner copies `to_host` into slots of its arena, waits once for all tensors of a message and sends it; the reader
copies `to_device` out of the segment that it has mapped.
"""

from __future__ import annotations

import weakref
from collections import deque

import torch

from mora_runtime.device.device_pool import Afterwards
from mora_runtime.device.ipc_device import IpcDevice
from mora_runtime.errors import DeadlineExceeded


class PinnedStaging:
    """Host segments registered with CUDA, and copies between them and one device."""

    def __init__(self, device: IpcDevice) -> None:
        self.device = device
        self._registered: dict[int, memoryview] = {}  # address -> buffer, which keeps the segment mapped
        self._ended: deque[int] = deque()  # addresses of segments whose owner is gone; finalizers append
        self._reading: Afterwards[torch.Tensor] = Afterwards(device)

    def register(self, buffer: memoryview, *, owner: object | None = None) -> None:
        """Pin a whole segment; a second time is no error. It stays mapped until `close`.

        Args:
            owner: with it, the segment is unpinned at the first `collect` after this object is gone.

        Raises:
            DeviceFailed: the segment stays pageable, and copies are slower.
        """
        address = torch.frombuffer(buffer, dtype=torch.uint8).data_ptr()
        if address in self._registered:
            return
        self.device.pin(address, buffer.nbytes)
        self._registered[address] = buffer
        if owner is not None:
            weakref.finalize(owner, self._ended.append, address).atexit = False

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

    @property
    def is_reading(self) -> bool:
        """True while copies to the device have not been seen to end."""
        return bool(self._reading)

    def collect(self) -> int:
        """Drop the views whose copies have run and return their number. Call it before every message and when idle."""
        num_read = len(self._reading.collect())
        while self._ended:
            address = self._ended.popleft()
            self.device.unpin(address)
            del self._registered[address]
        return num_read

    def close(self, *, deadline_s: float) -> None:
        """Unpin all segments, after all copies.

        Raises:
            DeadlineExceeded
        """
        self.wait(deadline_s=deadline_s)
        self.collect()
        self._reading.close()
        while self._registered:
            self.device.unpin(self._registered.popitem()[0])
