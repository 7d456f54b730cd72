"""Shared memory segments: sealed memory files, made once by their owner and mapped once by each peer.

No names, so nothing is left behind by a kill and no container limit on /dev/shm applies. The seals keep a peer from
shrinking the file under a reader, which would be SIGBUS and which no bounds check can stop.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat

import psutil

from mora_runtime.errors import SegmentRefused
from mora_runtime.limits import MAX_SEGMENT_NBYTES

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Segment:
    """A mapped segment. Closing drops the descriptor; the mapping lives until its last view dies."""

    def __init__(self, descriptor: int, nbytes: int) -> None:
        self.descriptor = descriptor
        self.nbytes = nbytes
        # Populated at once: later faults would cost more than the copies they serve.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self.buffer = memoryview(mmap.mmap(descriptor, nbytes, flags=flags))

    @classmethod
    def create(cls, nbytes: int) -> Segment:
        """Make a segment with all its pages allocated.

        Raises:
            OSError: ENOSPC or ENOMEM, here rather than as a crash at first touch.
        """
        # the kernel would go on allocating until it kills a process, not say that there is too little
        if nbytes > psutil.virtual_memory().available:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        descriptor = os.memfd_create("mora", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return cls(descriptor, nbytes)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def attach(cls, descriptor: int, nbytes: int) -> Segment:
        """Map a peer's segment.

        Raises:
            SegmentRefused: not a regular memory file, not sealed, or not of the size that was claimed.
        """
        check_descriptor(descriptor, nbytes)
        return cls(descriptor, nbytes)

    def close(self) -> None:
        """Give the descriptor back; views that are alive keep the memory."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def check_descriptor(descriptor: int, nbytes: int) -> None:
    """Refuse anything but a sealed memory file of exactly `nbytes` (SegmentRefused)."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise SegmentRefused("a peer offered a descriptor that is no memory file; expected a sealed memfd")
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise SegmentRefused("a peer offered a file that cannot be sealed; expected a sealed memfd") from None
    if seals & _SEALS != _SEALS:
        raise SegmentRefused("a peer offered an unsealed segment; it could shrink under its readers")
    if not 0 < nbytes <= MAX_SEGMENT_NBYTES or status.st_size != nbytes:
        raise SegmentRefused(f"a peer offered a segment of {status.st_size} bytes as one of {nbytes}")
