"""A data set as JSON lines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mora_runtime.errors import DatasetError
from mora_runtime.files.foreign_file import open_foreign
from mora_runtime.files.foreign_json import parse_json

from mora_data.entry import named_video, samples_of
from mora_data.faults import Fault
from mora_data.sample import Sample

_MAX_LINE_NBYTES = 64 << 10
_MAX_NUM_LINES = 1_000_000
_MAX_DEPTH = 4
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(path: Path, default_fps: float | None) -> Iterator[Sample | Fault]:
    """Yield the samples of a file, and a fault in place of each line that is wrong. Only `\\n` ends a line.

    Raises:
        DatasetError: the file cannot be read, or exceeds a limit.
    """
    for number, line in _lines(path):
        where, entry = f"{path}:{number}", dict[str, Any]()
        try:
            entry = _object(line)
            yield from samples_of(entry, folder=path.parent, where=where, line=number, default_fps=default_fps)
        except ValueError as error:
            yield Fault(number, named_video(entry), str(error), where)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Non-blank lines with their numbers."""
    try:
        with open(open_foreign(path), "rb") as file:
            for number in itertools.count(1):
                line = file.readline(_MAX_LINE_NBYTES + 1)
                if not line:
                    return
                if len(line) > _MAX_LINE_NBYTES:
                    raise DatasetError(
                        f"{path}:{number}: expected at most {_MAX_LINE_NBYTES} bytes in a line, got more"
                    )
                if number > _MAX_NUM_LINES:
                    raise DatasetError(f"{path}: expected at most {_MAX_NUM_LINES} lines, got more")
                if number == 1:
                    line = _without_mark(path, line)
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read as a dataset: {error.strerror}") from None


def _without_mark(path: Path, line: bytes) -> bytes:
    """The first line without the mark of its encoding, which some editors write."""
    if line.startswith(_UTF16_MARKS) and b"\0" in line:
        raise DatasetError(f"{path}: is UTF-16; save it as UTF-8")
    return line.removeprefix(_UTF8_MARK)


def _object(line: bytes) -> dict[str, Any]:
    try:
        entry: Any = parse_json(line.strip(), max_depth=_MAX_DEPTH)
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith("is not JSON") else f"is not JSON: {said}") from None
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object with `prompt` and `video`, got {type(entry).__name__}")
    return entry
