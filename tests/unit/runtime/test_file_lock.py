"""A process waits, with a deadline, for a lock that another process has."""

import os
import threading
from pathlib import Path

import pytest
from mora_runtime.errors import DeadlineExceeded
from mora_runtime.files.file_lock import lock_file


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_a_lock_is_taken_once_its_holder_has_closed_the_file(tmp_path: Path) -> None:
    holder, other = opened(tmp_path / "lock"), opened(tmp_path / "lock")
    lock_file(holder, 1.0, shown="the lock")
    threading.Timer(0.1, os.close, [holder]).start()
    lock_file(other, 30.0, shown="the lock")
    os.close(other)


def test_a_lock_that_stays_taken_is_an_error_that_names_it(tmp_path: Path) -> None:
    holder, other = opened(tmp_path / "lock"), opened(tmp_path / "lock")
    lock_file(holder, 1.0, shown="the lock")
    with pytest.raises(DeadlineExceeded, match=r"^the lock: another process has held its lock for 0 s"):
        lock_file(other, 0.1, shown="the lock")
    os.close(holder)
    os.close(other)
