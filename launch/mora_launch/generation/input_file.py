"""Files that a person names on the command line: read whole, within bounds."""

from __future__ import annotations

import stat
from pathlib import Path

from mora_runtime.errors import SettingsError

from mora_launch.limits import MAX_INPUT_FILE_NBYTES


def read_input(path: Path, option: str) -> bytes:
    """The content of a file.

    Args:
        option: that named it, for the text of an error.

    Raises:
        SettingsError: it cannot be read, is too large, or is no file: a device or pipe might never end.
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
