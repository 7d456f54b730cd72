"""A lock between processes that fetch, where the file system has locks."""

from __future__ import annotations

import errno

from mora_runtime.files.file_lock import lock_file

_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def lock_where_possible(descriptor: int, deadline_s: float, *, shown: str) -> None:
    """Take the exclusive lock of an open file; closing the descriptor releases it.

    Some file systems of clusters have no locks. Two fetches at the same time could then damage a file, which its
    SHA-256 shows.

    Raises:
        DeadlineExceeded: as `lock_file`.
    """
    try:
        lock_file(descriptor, deadline_s, shown=shown)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
