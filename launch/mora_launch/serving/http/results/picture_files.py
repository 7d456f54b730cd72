"""Pictures as files of the run directory, at addresses that cannot be guessed, until they expire."""

from __future__ import annotations

import re
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from mora_runtime.errors import StorageError
from mora_runtime.files.fresh_file import write_fresh

from mora_launch.limits import MAX_KEPT_PICTURES_NBYTES, MAX_NUM_KEPT_PICTURES
from mora_launch.serving.http.results.picture_format import PICTURE_TYPES, PictureFormat

_NAME = re.compile(rf"[\w-]{{32}}\.({'|'.join(PICTURE_TYPES)})", re.ASCII)


@dataclass(frozen=True)
class _Kept:
    expires_s: float
    nbytes: int


class PictureFiles:
    """The pictures of one run, those of its earlier servers too.

    Args:
        folder: created if missing, private to the user.
        keep_s: how long a picture is kept; the oldest ones expire earlier if there are too many.
    """

    def __init__(self, folder: Path, keep_s: float) -> None:
        folder.mkdir(exist_ok=True, mode=0o700)
        self._folder = folder
        self._keep_s = keep_s
        self._lock = threading.Lock()
        found = [(path.stat(), path.name) for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        self._kept = {
            name: _Kept(status.st_mtime + keep_s, status.st_size)
            for status, name in sorted(found, key=lambda each: each[0].st_mtime)
        }
        self._expire()

    def store(self, content: bytes, shape: PictureFormat) -> str:
        """Write a picture; return the name under which it is found. Raises: StorageError."""
        name = f"{secrets.token_urlsafe(24)}.{shape.kind}"
        with self._lock:
            self._expire(1, len(content))
            self._kept[name] = _Kept(time.time() + self._keep_s, len(content))
        try:
            write_fresh(self._folder / name, content)
        except OSError as error:
            with self._lock:
                self._kept.pop(name, None)
            raise StorageError(f"the picture cannot be written to the server's disk ({error.strerror})") from None
        return name

    def find(self, name: str) -> tuple[Path, str] | None:
        """Return path and content type of a picture, or None if there is none of this name."""
        with self._lock:
            self._expire()
            return (self._folder / name, PICTURE_TYPES[name.rpartition(".")[2]]) if name in self._kept else None

    def _expire(self, num_new: int = 0, new_nbytes: int = 0) -> None:
        """Remove what has expired, and the oldest pictures until new ones fit."""
        num, nbytes = len(self._kept) + num_new, sum(kept.nbytes for kept in self._kept.values()) + new_nbytes
        for name, kept in list(self._kept.items()):
            fits = num <= MAX_NUM_KEPT_PICTURES and nbytes <= MAX_KEPT_PICTURES_NBYTES
            if fits and kept.expires_s > time.time():
                break
            del self._kept[name]
            (self._folder / name).unlink(missing_ok=True)
            num, nbytes = num - 1, nbytes - kept.nbytes
