"""A device pool that a peer offered: its own, or that of another process whose tensors it passes on."""

from __future__ import annotations

import os
import select
import weakref

from mora_runtime.device.device_plane import DevicePlane
from mora_runtime.device.device_pool import OpenedPool
from mora_runtime.errors import DeviceUnavailable
from mora_runtime.wire.doorbell import OfferedPool

_PIDFD = "pidfd"  # in the name of such a descriptor under /proc, in every version of Linux


class OwnerProcess:
    """The process that owns a pool. The owner sends a descriptor of itself with the pool's offer."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._ended = select.poll()
        self._ended.register(descriptor, select.POLLIN)
        weakref.finalize(self, os.close, descriptor).atexit = False

    def is_alive(self) -> bool:
        """True until the process has ended."""
        return not self._ended.poll(0)


class PeerPool:
    """A pool that was offered. It is opened at once if this process has a device, so that readers can be told apart.

    Raises:
        DeviceUnavailable: the offer comes without a descriptor of a process. The receiver must close the offer.
    """

    def __init__(self, offered: OfferedPool) -> None:
        if offered.process is None:
            raise DeviceUnavailable("a process's descriptor was lost, too many open files here; raise `ulimit -n`")
        if _PIDFD not in os.readlink(f"/proc/self/fd/{offered.process}"):
            raise DeviceUnavailable("a device pool was offered with a descriptor that is not one of a process")
        self.owner = offered.owner
        self.offer = offered.offer
        self.process = OwnerProcess(offered.process)
        self.opened: OpenedPool[object] | None = None  # None: this process can only pass its tensors on

    @property
    def key(self) -> tuple[str, int]:
        """Owner and number, which name the pool in a message."""
        return self.owner, self.offer.pool

    def offered(self) -> OfferedPool:
        """The offer as it is passed on; this object keeps the descriptor."""
        return OfferedPool(self.owner, self.offer, self.process.descriptor)

    def open(self, plane: DevicePlane) -> None:
        """Open the pool on this process's device.

        Raises:
            DeviceUnavailable, BoundsError: the pool can only be passed on.
        """
        self.opened = plane.open(self.offer, self.owner, self.process.is_alive)
