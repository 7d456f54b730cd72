"""Memory files: files without a name, which processes share by their descriptors. Starts without torch."""

from __future__ import annotations

import errno
import os

from mora_runtime.errors import MemoryFilesForbidden

_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOSYS)


def memory_file(name: str) -> int:
    """Create an empty memory file that can be sealed; return its descriptor, which the caller closes.

    Raises:
        MemoryFilesForbidden: the system lets this process create none.
        OSError: no descriptor or no memory is left.
    """
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise
        raise MemoryFilesForbidden(
            f"the system refuses memfd_create ({error.strerror}), with which Mora's processes share tensors; allow "
            "this system call in the sandbox or container (its seccomp profile)"
        ) from None
