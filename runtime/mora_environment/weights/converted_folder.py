"""Where converted weights are: `mora-weights/`, next to the Hub's cache.

A folder for each repository, commit and dtype contains `model.safetensors`, the model's `config.json`, and a record
of the files it was made from. It appears whole or not at all.
"""

from __future__ import annotations

from pathlib import Path

from mora_runtime.errors import SettingsError
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.foreign_json import parse_json
from mora_runtime.schema import Settings, read_settings

from mora_environment.weights.hub_cache import cache_folder, cached_commit
from mora_environment.weights.weights_source import HubPlace, WeightsSource

CONVERTED_FOLDER = "mora-weights"
WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "mora-conversion.json"
_MAX_RECORD_NBYTES = 1 << 20


class SourceFile(Settings):
    """One file that was converted."""

    path: str  # in the repository
    nbytes: int
    sha256: str


class ConversionRecord(Settings):
    """What converted weights were made from."""

    version: int = 1
    repository: str
    commit: str
    sources: tuple[SourceFile, ...]
    dtype: str
    num_tensors: int
    nbytes: int  # of `model.safetensors`


def converted_root() -> Path:
    """The folder of all converted weights; next to the cache, whose own tools refuse folders that they do not know."""
    return cache_folder().parent / CONVERTED_FOLDER


def converted_folder(place: HubPlace, commit: str, dtype: str) -> Path:
    """Folder of the converted weights of one commit, which may not exist."""
    name = "--".join(["models", *str(place).split("/")])
    return converted_root() / name / f"{commit}-{dtype}"


def find_converted(source: WeightsSource) -> Path | None:
    """The converted weights of a source, or None."""
    if source.conversion is None:
        return None
    return converted_weights(source.name, source.conversion.dtype, subfolder=source.subfolder)


def converted_weights(name: str, dtype: str, *, subfolder: str = "") -> Path | None:
    """The folder of the converted weights of a Hub id, or None: the name is a folder, or they were not converted."""
    place = None if Path(name).is_dir() else HubPlace.of(name, subfolder)
    commit = None if place is None else cached_commit(place.repository)
    if place is None or commit is None:
        return None
    folder = converted_folder(place, commit, dtype)
    return folder if read_record(folder) is not None else None


def read_record(folder: Path) -> ConversionRecord | None:
    """The record of converted weights; None if they are not whole."""
    try:
        content = parse_json(read_foreign(folder / RECORD_FILE, _MAX_RECORD_NBYTES))
        record = read_settings(ConversionRecord, content, source=RECORD_FILE)
        nbytes = (folder / WEIGHTS_FILE).stat().st_size
    except (OSError, ValueError, SettingsError):
        return None
    return record if nbytes == record.nbytes else None
