"""Reading input files named on the command line, with a limit on their size."""

from __future__ import annotations

import stat
from pathlib import Path

from mora_runtime.errors import SettingsError

from mora_launch.limits import MAX_INPUT_FILE_NBYTES


def read_input(path: Path, option: str) -> bytes:
    """Return the content of a file.

    Args:
        option: the option that names it, for error messages.

    Raises:
        SettingsError: it cannot be read, is too large, or is not a regular file: a device or pipe might never end.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"{option} {path}: expected a file, got a device, pipe or folder")
        if status.st_size > MAX_INPUT_FILE_NBYTES:
            raise SettingsError(
                f"{option} {path}: expected at most {MAX_INPUT_FILE_NBYTES} bytes, got {status.st_size}"
            )
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{option} {path}: cannot be read: {error.strerror}") from None
