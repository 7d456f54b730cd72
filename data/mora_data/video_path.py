"""The file that a data set names, as it is called on this machine."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_WINDOWS = re.compile(r"^([A-Za-z]:[\\/]|\\\\)")


def located(name: str, folder: Path) -> Path:
    """Return the file of this name.

    `~` is the user's home, other relative names start in `folder`. A name can be written with composed or with
    decomposed letters (macOS decomposes them); the file that exists is taken.

    Raises:
        ValueError: it is a path of Windows.
    """
    if _WINDOWS.match(name) and not (folder / name).exists():
        raise ValueError(f"`{name[:60]}` is a path of Windows; expected the path of the file on this machine")
    path = Path(name)
    if path.parts[:1] == ("~",):
        path = path.expanduser()
    path = folder / path
    if path.exists():
        return path
    others = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in others if other.exists()), path)
