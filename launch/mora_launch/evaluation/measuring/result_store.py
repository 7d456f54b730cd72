"""The results of an evaluation on disk: one JSON line each, appended and synced as it is made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from mora_runtime.errors import StorageError
from mora_runtime.files.foreign_file import read_foreign

from mora_launch.evaluation.measuring.result import Key, Result
from mora_launch.limits import MAX_RESULTS_NBYTES

RESULTS_FILE = "results.jsonl"


class ResultStore:
    """A context manager over the file. Only one process may write it: it belongs to a locked run directory.

    A process that is killed while it writes leaves a part of a line, which is cut off when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results = read_results(path)
        self._descriptor = -1

    def __enter__(self) -> ResultStore:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
            os.ftruncate(self._descriptor, _whole_nbytes(self._path))
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}; choose another -o") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def get(self, key: Key) -> Result | None:
        """Return the result for a key, or None."""
        return self._results.get(key)

    def add(self, result: Result) -> None:
        """Append a result; it is on the disk when this returns.

        Raises:
            StorageError: it cannot be written; all earlier results are kept.
        """
        try:
            os.write(self._descriptor, result.line().encode())
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StorageError(
                f"{self._path}: cannot be written: {error.strerror}; free disk space and repeat the command, which "
                "continues from the results that are there"
            ) from None
        self._results[result.key] = result


def read_results(path: Path) -> dict[Key, Result]:
    """Read the complete lines of a file of results, by key; the last line of a key counts. Other lines are left out."""
    try:
        text = read_foreign(path, MAX_RESULTS_NBYTES).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}; choose another -o") from None
    found = (_result_of(line) for line in text.split("\n")[:-1])
    return {result.key: result for result in found if result is not None}


def by_file(results: Mapping[Key, Result]) -> dict[tuple[str, str], Result]:
    """Return results by (hash of the file, dimension)."""
    return {(key.sha256, key.dimension): result for key, result in results.items()}


def _result_of(line: str) -> Result | None:
    try:
        return Result.of_line(json.loads(line))
    except (ValueError, TypeError, KeyError):
        return None  # of another version; the video is measured again


def _whole_nbytes(path: Path) -> int:
    """Size of the file up to the end of its last whole line."""
    return path.read_bytes().rfind(b"\n") + 1
