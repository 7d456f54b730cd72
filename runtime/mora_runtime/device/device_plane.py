"""The device memory that a process shares with others: its own pool, the pools of peers, and pinned staging.

The tensor store makes the decisions that concern peers. `DevicePlane` knows only the device: it places tensors in the
pool, opens pools of peers, and copies through pinned host memory for readers that cannot open the pool.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from mora_runtime.device import ipc_device
from mora_runtime.device.device_pool import DevicePool, DeviceSlot, OpenedPool
from mora_runtime.device.ipc_device import IpcDevice
from mora_runtime.device.pinned_staging import PinnedStaging
from mora_runtime.errors import ArenaFull, DeviceFailed, DeviceUnavailable, MoraError
from mora_runtime.limits import DEVICE_WORK_DEADLINE_S
from mora_runtime.wire.device_tensor import DeviceOffer, DeviceTensor
from mora_runtime.wire.tensor_meta import TensorMeta

log = logging.getLogger(__name__)


class DevicePlane:
    """The shared memory of one device of this process. Belongs to the thread that sends and receives tensors.

    Args:
        pool_nbytes: memory on the device for tensors that other processes read.
    """

    def __init__(self, device: IpcDevice, pool_nbytes: int) -> None:
        self.device = device
        self.pool = DevicePool(device, pool_nbytes, wait_s=0.0)  # a full pool is no error: staging takes its place
        self._staging = PinnedStaging(device)
        self._opened: list[OpenedPool[object]] = []
        self._left: list[OpenedPool[object]] = []  # closed as soon as no view of them is left
        self._has_staged = False
        self._pins = True

    @classmethod
    def opened_on(cls, torch_device: torch.device, pool_nbytes: int) -> DevicePlane | None:
        """Open a device's plane; None, with the reason in the log, if its memory cannot be shared."""
        try:
            return cls(ipc_device.open_device(torch_device), pool_nbytes)
        except (DeviceUnavailable, DeviceFailed) as error:
            log.warning("tensors on %s go through host memory: %s", torch_device, error)
            return None

    @property
    def offer(self) -> DeviceOffer:
        """What other processes need to open this process's pool."""
        return self.pool.offer

    def has(self, tensor: torch.Tensor) -> bool:
        """True for a tensor on this device."""
        return tensor.device == self.device.torch_device

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Make an uninitialised tensor in the pool, or outside of it if the pool is full."""
        try:
            return self.pool.empty(shape, dtype)
        except ArenaFull:
            return torch.empty(shape, dtype=dtype, device=self.device.torch_device)

    def place(self, tensor: torch.Tensor) -> tuple[DeviceSlot, TensorMeta] | None:
        """Return the tensor's slot, maybe a new one with a copy of it; None if the pool is full."""
        try:
            return self.pool.place(tensor)
        except ArenaFull:
            return None

    def export(self, slot: DeviceSlot, meta: TensorMeta) -> DeviceTensor:
        """Describe a placed tensor for a reader."""
        return self.pool.export(slot, meta)

    def open(self, offer: DeviceOffer, owner: str, is_alive: Callable[[], bool]) -> OpenedPool[object]:
        """Open a peer's pool.

        Raises:
            DeviceUnavailable, BoundsError: see `OpenedPool`.
        """
        made: OpenedPool[object] = OpenedPool(offer, self.device, owner=owner, is_alive=is_alive)
        self._opened.append(made)
        return made

    def leave(self, opened: OpenedPool[object]) -> None:
        """Close a pool that `open` returned, once its last view and the work on it have ended."""
        if opened in self._opened:
            self._opened.remove(opened)
            self._left.append(opened)

    def to_host(self, tensor: torch.Tensor, window: torch.Tensor, segment: memoryview | None) -> None:
        """Copy a tensor to shared memory; it is there after `finish`.

        Args:
            segment: that contains the window and is used again for other tensors; None = it is not, so pinning it would
                take longer than it saves.
        """
        if segment is None or not self._pinned(segment):
            window.copy_(tensor.detach())
            return
        self._staging.to_host(tensor, window)
        self._has_staged = True

    def to_device(self, window: torch.Tensor, segment: memoryview, owner: object) -> torch.Tensor:
        """Copy a tensor of a peer's segment to the device; the window lives until the copy has run.

        Args:
            owner: lives as long as the segment is used.
        """
        if not self._pinned(segment, owner):
            return window.to(self.device.torch_device)
        return self._staging.to_device(window)

    def _pinned(self, segment: memoryview, owner: object | None = None) -> bool:
        if self._pins:
            try:
                self._staging.register(segment, owner=owner)
            except DeviceFailed as error:
                log.warning("shared memory stays pageable, so copies to and from the GPU are slower: %s", error)
                self._pins = False
        return self._pins

    def finish(self) -> None:
        """Wait until the copies of `to_host` have run.

        Raises:
            DeadlineExceeded, DeviceFailed
        """
        if self._has_staged:
            self._staging.wait(deadline_s=DEVICE_WORK_DEADLINE_S)
            self._has_staged = False

    def collect(self) -> None:
        """End the leases of views whose work has run. Call it before every message and when idle.

        Raises:
            DeviceFailed: the device is lost.
        """
        for opened in (*self._opened, *self._left):
            opened.collect()
        self._left = [opened for opened in self._left if not opened.close()]
        self._staging.collect()
        self.pool.collect()

    def leave_dead(self) -> None:
        """Close the pools of owners that have ended, as soon as no view is left."""
        for opened in list(self._opened):
            if not opened.has_owner:
                self.leave(opened)

    @property
    def is_busy(self) -> bool:
        """True while `collect` will have more to do as soon as work on the device has run.

        Raises:
            DeviceFailed: the device is lost.
        """
        pools = (*self._opened, *self._left)
        return self.pool.is_writing or self._staging.is_reading or any(pool.is_ending for pool in pools)

    @property
    def num_opened(self) -> int:
        """Pools of peers that this process has open."""
        return len(self._opened) + len(self._left)

    def close(self) -> None:
        """Close the pools of peers and free the own one, unless they are in use; then they end with the process."""
        try:
            for opened in list(self._opened):
                self.leave(opened)
            self.collect()
            self.pool.close()
        except MoraError as error:
            log.warning("device memory was not closed in order: %s", error)
