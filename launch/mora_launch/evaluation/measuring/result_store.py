"""The results of an evaluation on disk: one JSON line each, appended and synced as it is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mora_launch.evaluation.durable_lines import DurableLines
from mora_launch.evaluation.measuring.result import Key, Result

RESULTS_FILE = "results.jsonl"


class ResultStore:
    """A context manager over the file. Of several lines with one key the last one counts."""

    def __init__(self, path: Path) -> None:
        self._lines = DurableLines(path)
        found = (_result_of(content) for content in self._lines.before)
        self._results = {result.key: result for result in found if result is not None}

    def __enter__(self) -> ResultStore:
        self._lines.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.__exit__(kind, error, trace)

    def get(self, key: Key) -> Result | None:
        """Return the result for a key, or None."""
        return self._results.get(key)

    def add(self, result: Result) -> None:
        """Append a result. Raises: StorageError: it cannot be written; all earlier results are kept."""
        self._lines.append(result.content())
        self._results[result.key] = result


def _result_of(content: Mapping[str, Any]) -> Result | None:
    try:
        return Result.of_content(content)
    except (TypeError, KeyError):
        return None  # of another version of Mora; the video is measured again
