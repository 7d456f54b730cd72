"""The token of a server: read from a file of the user, or made for the run."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from mora_runtime.errors import SettingsError

from mora_launch.limits import MAX_TOKEN_FILE_NBYTES

_NAME = "token"
_FORM = re.compile(r"[!-~]{16,1024}")  # needs no escaping in a header


def read_token(path: Path) -> str:
    """Read the token from a file of the user.

    Raises:
        SettingsError: the file cannot be read, is readable by others, or contains no token.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # do not block on a pipe
    except OSError as error:
        raise SettingsError(f"--token-file {path}: cannot be read: {error.strerror}") from None
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"--token-file {path}: expected a file, got a device, pipe or folder")
        if status.st_uid not in (os.getuid(), 0) or stat.S_IMODE(status.st_mode) & 0o077:
            raise SettingsError(
                f"--token-file {path}: other users can read or replace it (mode {stat.S_IMODE(status.st_mode):04o}, "
                f"user id {status.st_uid}); expected a file that you own, with chmod 600"
            )
        text = file.read(MAX_TOKEN_FILE_NBYTES + 1).decode("utf-8", "replace").strip()
    if _FORM.fullmatch(text) is None:
        raise SettingsError(
            f"--token-file {path}: expected 16 to 1024 printable ASCII characters without spaces, got {len(text)}"
        )
    return text


def token_of_run(folder: Path) -> str:
    """Return the token of a run directory; make one, in a file of mode 0600, if there is none. A restarted server keeps
    its token, so that open pages still work."""
    path = folder / _NAME
    try:
        return read_token(path)
    except SettingsError:
        path.unlink(missing_ok=True)
    token = secrets.token_urlsafe(32)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="ascii") as file:
        file.write(token)
    return token
