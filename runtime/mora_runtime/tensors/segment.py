"""Shared memory segments: sealed memory files, made once by their owner and mapped once by each peer.

The files have no names, so a kill leaves nothing behind and no container limit on /dev/shm applies. The seals prevent a
peer from shrinking the file under a reader, which would raise SIGBUS past any bounds check.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat

import psutil

from mora_runtime.errors import SegmentRefused
from mora_runtime.files.memory_file import memory_file
from mora_runtime.limits import MAX_SEGMENT_NBYTES

_MADV_POPULATE_WRITE = 23  # Linux 5.14
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Segment:
    """A mapped segment. `close` closes the descriptor; the mapping lives until its last view dies.

    is_single: the segment stores one tensor and is freed with it.
    """

    def __init__(self, descriptor: int, nbytes: int, *, is_single: bool = False) -> None:
        self.descriptor = descriptor
        self.nbytes = nbytes
        self.is_single = is_single
        self._mapping = mmap.mmap(descriptor, nbytes, flags=mmap.MAP_SHARED)
        self.buffer = memoryview(self._mapping)
        self.address = ctypes.addressof(ctypes.c_ubyte.from_buffer(self.buffer))

    @classmethod
    def create(cls, nbytes: int) -> Segment:
        """Make a segment with all its pages allocated and touched.

        Raises:
            OSError: ENOSPC or ENOMEM, instead of a crash at first touch.
            MemoryFilesForbidden: the system lets this process create no memory files.
        """
        # without this check the kernel would keep allocating until it kills a process
        if nbytes > psutil.virtual_memory().available:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        descriptor = memory_file("mora")
        try:
            os.ftruncate(descriptor, nbytes)
            made = cls(descriptor, nbytes)
            made._populate()
            os.posix_fallocate(descriptor, 0, nbytes)  # where populating is not supported, this allocates
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        return made

    @classmethod
    def attach(cls, descriptor: int, nbytes: int) -> Segment:
        """Map a peer's segment.

        Raises:
            SegmentRefused: not a regular memory file, not sealed, or not of the claimed size.
        """
        check_descriptor(descriptor, nbytes)
        made = cls(descriptor, nbytes)
        made._populate()
        return made

    def _populate(self) -> None:
        """Map all pages at once: faulting them in later would take longer than the copies into them.

        Asks for huge pages, which mean fewer faults and TLB misses.
        """
        with contextlib.suppress(OSError):  # only advice; kernels without huge pages for shared memory refuse it
            self._mapping.madvise(mmap.MADV_HUGEPAGE)
        try:
            self._mapping.madvise(_MADV_POPULATE_WRITE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # kernels before 5.14 do not know it and fault page by page
                raise

    def close(self) -> None:
        """Close the descriptor; existing views keep the memory."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def check_descriptor(descriptor: int, nbytes: int) -> None:
    """Refuse anything but a sealed memory file of exactly `nbytes` (SegmentRefused)."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise SegmentRefused("a peer offered a descriptor that is not a memory file; expected a sealed memfd")
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise SegmentRefused("a peer offered a file that cannot be sealed; expected a sealed memfd") from None
    if seals & _SEALS != _SEALS:
        raise SegmentRefused("a peer offered an unsealed segment; it could shrink under its readers")
    if not 0 < nbytes <= MAX_SEGMENT_NBYTES or status.st_size != nbytes:
        raise SegmentRefused(
            f"a peer offered a file of {status.st_size} bytes as a segment of {nbytes} bytes; expected equal sizes > 0"
        )
