"""The tokens of a server: read from a file of the user, or one made for the run. The name of a token is its tenant."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from mora_runtime.errors import SettingsError

from mora_launch.limits import MAX_TOKEN_FILE_NBYTES

BARE = "token"  # name of the only token, if it has no other
_NAME = "token"  # of the file of a run
_NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORM = re.compile(r"[!-~]{16,1024}")  # needs no escaping in a header


def read_tokens(path: Path) -> dict[str, str]:
    """Read the tokens by name from a file of the user: lines of `NAME TOKEN`, or one token alone.

    Raises:
        SettingsError: the file cannot be read, is readable by others, or contains no tokens.
    """
    lines = [line.split() for line in _read(path).splitlines() if line.strip()]
    if len(lines) == 1 and len(lines[0]) == 1:
        lines = [[BARE, *lines[0]]]
    tokens: dict[str, str] = {}
    for number, words in enumerate(lines, 1):
        where = f"--token-file {path}: line {number}"
        if len(words) != 2:
            raise SettingsError(
                f"{where}: expected NAME TOKEN, or a single token as the whole file; got {len(words)} words"
            )
        name, token = words
        if _NAME_FORM.fullmatch(name) is None:
            raise SettingsError(
                f"{where}: expected a name of letters, digits, `.`, `_` and `-`, at most 64, before the token"
            )
        if _FORM.fullmatch(token) is None:
            raise SettingsError(
                f"{where}: expected 16 to 1024 printable ASCII characters without spaces, got {len(token)}"
            )
        if name in tokens or token in tokens.values():
            raise SettingsError(
                f"{where}: the name or the token of `{name}` comes twice; each token needs its own name"
            )
        tokens[name] = token
    if not tokens:
        raise SettingsError(
            f"--token-file {path}: expected 16 to 1024 printable ASCII characters without spaces, got 0"
        )
    return tokens


def _read(path: Path) -> str:
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
        content = file.read(MAX_TOKEN_FILE_NBYTES + 1)
    if len(content) > MAX_TOKEN_FILE_NBYTES:
        raise SettingsError(f"--token-file {path}: expected at most {MAX_TOKEN_FILE_NBYTES} bytes, got more")
    return content.decode("utf-8", "replace")


def token_of_run(folder: Path) -> str:
    """Return the token of a run directory; make one, in a file of mode 0600, if there is none. A restarted server keeps
    its token, so that open pages still work."""
    path = folder / _NAME
    try:
        return read_tokens(path)[BARE]
    except (SettingsError, KeyError):
        path.unlink(missing_ok=True)
    token = secrets.token_urlsafe(32)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="ascii") as file:
        file.write(token)
    return token
