"""SHA-256 of large files; an unchanged file is read only once."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mora_runtime.files.durable_files import replace_text, sha256_of

_State = tuple[int, int, int]  # size, time of the last change in ns, inode


class FileDigests:
    """Digests by path, stored in a file with the size, time and inode that each path had when it was read.

    Args:
        record: the file that stores them. An unreadable one counts as empty, so files are read again.
    """

    def __init__(self, record: Path) -> None:
        self._record = record

    def sha256(self, path: Path) -> str:
        """Digest of the whole content, as hex; reads the file only if its size, time or inode has changed."""
        name, state = str(path.resolve()), _state(path)
        known = self._known()
        if name in known and tuple(known[name][:3]) == state:
            return str(known[name][3])
        digest = sha256_of(path)
        if _state(path) == state:  # a file that changed during reading is read again next time
            replace_text(self._record, json.dumps({**known, name: [*state, digest]}, indent=1))
        return digest

    def _known(self) -> dict[str, list[int | str]]:
        try:
            known = json.loads(self._record.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        is_record = isinstance(known, dict) and all(isinstance(e, list) and len(e) == 4 for e in known.values())
        return known if is_record else {}


def _state(path: Path) -> _State:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino
