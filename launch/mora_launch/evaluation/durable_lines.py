"""A file of JSON lines to which one process appends; each line is on the disk before the next one is made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mora_runtime.errors import StorageError
from mora_runtime.files.foreign_file import read_foreign

from mora_launch.limits import MAX_RESULTS_NBYTES


class DurableLines:
    """A context manager over the file. The caller has a lock that lets no other process write it.

    A process that is killed while it writes leaves a part of a line, which is cut off when the file is opened again.

    Attributes:
        before: the objects of earlier processes; lines that are none are left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        text, self._whole_nbytes = _whole_text(path)
        self.before = [content for line in text.split("\n") if (content := _object_of(line)) is not None]

    def __enter__(self) -> DurableLines:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
            os.ftruncate(self._descriptor, self._whole_nbytes)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}; choose another -o") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def append(self, content: Mapping[str, Any]) -> None:
        """Append an object as one line; it is on the disk when this returns.

        Raises:
            StorageError: it cannot be written; all earlier lines are kept.
        """
        line = (json.dumps(content, allow_nan=False) + "\n").encode()
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StorageError(
                f"{self._path}: cannot be written: {error.strerror}; free disk space and repeat the command, which "
                "continues from what is there"
            ) from None


def _whole_text(path: Path) -> tuple[str, int]:
    """Return the file's whole lines and their size."""
    try:
        content = read_foreign(path, MAX_RESULTS_NBYTES)
    except FileNotFoundError:
        return "", 0
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}; choose another -o") from None
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode("utf-8", errors="replace"), len(whole)


def _object_of(line: str) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
