"""Files from untrusted sources: only regular files are opened, pipes do not block, and reads are bounded.

Starts without torch. Used for files that a user may have received from others: manifests, records, configurations, data
sets.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Opening a pipe does not block, and a terminal does not become this process's controlling terminal.
_CAREFUL = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NOT_A_FILE = "expected a regular file, got a device, pipe, socket or folder"


class ForeignFileRefused(OSError):
    """The path is not a regular file, is a link that is not allowed, or the file is too large."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.strerror = text


def open_foreign(path: str | Path, *, folder: int | None = None, follow_links: bool = True) -> int:
    """Open a regular file for reading and return its descriptor.

    Args:
        folder: descriptor of the folder that `path` is relative to.
        follow_links: whether the last part of the path may be a link; its target must be a regular file in any case.

    Raises:
        ForeignFileRefused: the path is not a regular file; it is not opened, because opening can block or have effects.
        OSError: it cannot be opened.
    """
    status = os.stat(path, dir_fd=folder, follow_symlinks=follow_links)
    if stat.S_ISLNK(status.st_mode):
        raise ForeignFileRefused("expected a regular file, got a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise ForeignFileRefused(NOT_A_FILE)
    descriptor = os.open(path, _CAREFUL | (0 if follow_links else os.O_NOFOLLOW), dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # the path was replaced since the check
        os.close(descriptor)
        raise ForeignFileRefused(NOT_A_FILE)
    return descriptor


def read_foreign(path: str | Path, max_nbytes: int, *, folder: int | None = None, follow_links: bool = True) -> bytes:
    """Read the content of a regular file.

    Raises:
        ForeignFileRefused: it is not a regular file, or has more than `max_nbytes`.
        OSError: it cannot be read.
    """
    with open(open_foreign(path, folder=folder, follow_links=follow_links), "rb") as file:
        content = file.read(max_nbytes + 1)  # not by its size, which may be wrong or grow
    if len(content) > max_nbytes:
        raise ForeignFileRefused(f"expected at most {max_nbytes} bytes, got more")
    return content


def open_beneath(root: Path, name: str) -> int:
    """Open the regular file `name` below the folder `root` for reading; no part of the path may be a link.

    `root` itself must not be a link either; the caller is responsible for the path to it.

    Raises:
        OSError: as `open_foreign`; NotADirectoryError also if a folder on the way is a link.
    """
    *folders, last = name.split("/")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(root, flags)
    try:
        for part in folders:
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        return open_foreign(last, folder=descriptor, follow_links=False)
    finally:
        os.close(descriptor)
