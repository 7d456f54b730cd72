"""Which files of a folder an agent loads: the same rule for a listing of the Hub and for the cache."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from dataclasses import dataclass

from mora_environment.weights.weights_source import Conversion, WeightsSource


@dataclass(frozen=True)
class FileChoice:
    """Names of files in the folder of a source.

    Args:
        to_convert: weights that must be converted before an agent loads them.
        lacking: files that the folder should have, and has not.
    """

    files: tuple[str, ...]
    to_convert: tuple[str, ...]
    lacking: tuple[str, ...]

    @property
    def all_files(self) -> tuple[str, ...]:
        """What has to be downloaded."""
        return (*self.files, *self.to_convert)


def choose(source: WeightsSource, names: Collection[str], *, is_converted: bool = False) -> FileChoice:
    """The files that a source needs.

    Args:
        names: of the files in its folder.
        is_converted: its weights were converted before, so they are not needed.
    """
    extras = [name for name in sorted(names) if _matches(name, source.extras) and name not in source.files]
    lacking = [name for name in source.files if name not in names]
    files = [*extras, *(name for name in source.files if name in names)]
    if source.weights is None or is_converted:
        return FileChoice(tuple(files), (), tuple(lacking))
    weights = _safetensors(source.weights, names) or _otherwise(source.otherwise, names)
    to_convert = () if weights or source.conversion is None else pickled_files(source.conversion, names)
    if not weights and not to_convert:
        lacking.append(f"{source.weights}.safetensors")
    return FileChoice(tuple(dict.fromkeys([*files, *weights])), to_convert, tuple(lacking))


def _safetensors(stem: str, names: Collection[str]) -> tuple[str, ...]:
    single, index = f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    if single in names:
        return (single,)
    if index not in names:
        return ()
    shard = re.compile(re.escape(stem) + r"-\d{5}-of-\d{5}\.safetensors")
    return (index, *(name for name in sorted(names) if shard.fullmatch(name)))


def _otherwise(patterns: Collection[str], names: Collection[str]) -> tuple[str, ...]:
    found = ([name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)] for pattern in patterns)
    return tuple(next((each for each in found if each), ()))


def pickled_files(conversion: Conversion, names: Collection[str]) -> tuple[str, ...]:
    """The file to convert, or its index and shards; nothing if there is neither."""
    if conversion.file in names:
        return (conversion.file,)
    index = f"{conversion.file}.index.json"
    stem, dot, suffix = conversion.file.rpartition(".")
    shard = re.compile(re.escape(stem) + r"-\d{5}-of-\d{5}" + re.escape(dot + suffix))
    return (index, *(name for name in sorted(names) if shard.fullmatch(name))) if index in names else ()


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
