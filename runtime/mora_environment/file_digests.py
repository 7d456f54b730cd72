"""SHA-256 of large files, each read once for as long as it stays as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mora_runtime.files.durable_files import replace_text, sha256_of

_State = tuple[int, int, int]  # size, time of the last change in ns, inode


class FileDigests:
    """Digests by path, remembered in a file together with the state that each path had when it was read.

    Args:
        record: where they are remembered. One that cannot be read counts as empty: then files are read again.
    """

    def __init__(self, record: Path) -> None:
        self._record = record

    def sha256(self, path: Path) -> str:
        """Of the whole content, as hex; read from the file only if its size, time or inode is another."""
        name, state = str(path.resolve()), _state(path)
        known = self._known()
        if name in known and tuple(known[name][:3]) == state:
            return str(known[name][3])
        digest = sha256_of(path)
        if _state(path) == state:  # a file that changed while it was read is read again next time
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
