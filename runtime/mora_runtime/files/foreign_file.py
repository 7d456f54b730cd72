"""Files of other people: opened only where they are files, without waiting for a pipe, and read up to a bound.

Starts without torch. Used by whoever reads what a person was given: manifests, records, configurations, data sets.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

# A pipe that somebody holds is not waited for, and a terminal does not become this process's own.
_CAREFUL = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NOT_A_FILE = "expected a regular file, got a device, pipe, socket or folder"


class ForeignFileRefused(OSError):
    """It is no regular file, it is a link where none may be, or it is too large."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.strerror = text


def open_foreign(path: str | Path, *, folder: int | None = None, follow_links: bool = True) -> int:
    """A descriptor to read a regular file from.

    Args:
        folder: descriptor of the folder that `path` is relative to.
        follow_links: whether the path's last part may be a link; what it ends at must be a regular file in any case.

    Raises:
        ForeignFileRefused: something else has that name; it was not opened, because opening alone can wait or act.
        OSError: it cannot be opened.
    """
    status = os.stat(path, dir_fd=folder, follow_symlinks=follow_links)
    if stat.S_ISLNK(status.st_mode):
        raise ForeignFileRefused("expected a regular file, got a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise ForeignFileRefused(NOT_A_FILE)
    descriptor = os.open(path, _CAREFUL | (0 if follow_links else os.O_NOFOLLOW), dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # another one has taken its name meanwhile
        os.close(descriptor)
        raise ForeignFileRefused(NOT_A_FILE)
    return descriptor


def read_foreign(path: str | Path, max_nbytes: int, *, folder: int | None = None, follow_links: bool = True) -> bytes:
    """The content of a regular file.

    Raises:
        ForeignFileRefused: it is none, or has more than `max_nbytes`.
        OSError: it cannot be read.
    """
    with open(open_foreign(path, folder=folder, follow_links=follow_links), "rb") as file:
        content = file.read(max_nbytes + 1)  # whatever its size is said to be, and however it grows
    if len(content) > max_nbytes:
        raise ForeignFileRefused(f"expected at most {max_nbytes} bytes, got more")
    return content


def open_beneath(root: Path, name: str) -> int:
    """A descriptor to read the regular file `name` from, below the folder `root`, with no link on the way.

    `root` itself may be no link either; what leads to it is the caller's.

    Raises:
        OSError: as `open_foreign`; NotADirectoryError also where a folder on the way is a link.
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
