"""A user id without a name or a home directory, as containers have it.

Libraries ask for both when they are imported, and fail or write to a folder called `~`.
"""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path


def complete_account() -> None:
    """Give this process and its children a name and a home directory, if their user has none."""
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = str(_own_folder())
    try:
        getpass.getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        os.environ["LOGNAME"] = f"uid{os.getuid()}"


def _own_folder() -> Path:
    """A private folder in the folder for temporary files: always the same one, unless another user has its name."""
    folder = Path(tempfile.gettempdir(), f"mora-home-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mora-home-"))
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) == 0o700
    return folder if is_ours else Path(tempfile.mkdtemp(prefix="mora-home-"))
