"""A data set as a table, CSV or TSV, whose first line names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mora_runtime.errors import DatasetError
from mora_runtime.files.foreign_file import read_foreign

from mora_data.entry import PROMPT_KEYS, VIDEO_KEYS, named_video, samples_of
from mora_data.faults import Fault
from mora_data.sample import Sample

SUFFIXES = (".csv", ".tsv")
_MAX_NBYTES = 256 << 20
_NUMBERS = ("start_s", "fps")


def read_table(path: Path, default_fps: float | None) -> Iterator[Sample | Fault]:
    """Yield the samples of a table, and a fault in place of each row that is wrong. Other columns are ignored.

    Raises:
        DatasetError: the file cannot be read, or has no columns for prompt and video.
    """
    text = _text(path)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
    try:
        _check_columns(path, list(rows.fieldnames or []))
        for row in rows:
            where = f"{path}:{rows.line_num}"
            try:
                yield from samples_of(
                    _entry(row), folder=path.parent, where=where, line=rows.line_num, default_fps=default_fps,
                    ignores_others=True,
                )  # fmt: skip
            except ValueError as error:
                yield Fault(rows.line_num, named_video(row), str(error), where)
    except csv.Error as error:
        raise DatasetError(f"{path}:{rows.line_num}: is not a table: {error}") from None


def _text(path: Path) -> str:
    try:
        return read_foreign(path, _MAX_NBYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read as a dataset: {error}") from None


def _delimiter(path: Path, text: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = text.partition("\n")[0]
    return ";" if ";" in first and "," not in first else ","  # spreadsheets of some countries write semicolons


def _check_columns(path: Path, names: list[str]) -> None:
    for kind, keys in (("video", VIDEO_KEYS), ("prompt", PROMPT_KEYS)):
        if not set(keys) & set(names):
            raise DatasetError(
                f"{path}: expected a column `{kind}` (or {', '.join(keys[1:])}) in the first line, got "
                f"{', '.join(names[:8]) or 'nothing'}"
            )


def _entry(row: Mapping[str, str | None]) -> dict[str, Any]:
    """The cells that are not empty; numbers as numbers."""
    if None in row:
        raise ValueError("has more cells than the first line has columns")
    entry: dict[str, Any] = {name: value for name, value in row.items() if value}
    for name in _NUMBERS:
        if name in entry:
            try:
                entry[name] = float(entry[name])
            except ValueError:
                raise ValueError(f"`{name}` must be a number, got {entry[name][:60]!r}") from None
    return entry
