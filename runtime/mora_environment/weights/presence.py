"""Whether the weights that an agent loads are on this machine. It needs no torch and no network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from mora_environment.weights.converted_folder import find_converted
from mora_environment.weights.file_choice import FileChoice, choose
from mora_environment.weights.hub_cache import cached_commit, cached_files, snapshot_folder
from mora_environment.weights.missing_weights import MissingWeights
from mora_environment.weights.weights_source import HubPlace, WeightsSource


def missing_weights(sources: Iterable[WeightsSource], owner: str) -> list[MissingWeights]:
    """What is missing of the sources, one entry for a repository.

    Args:
        owner: key of the configuration that contains the options.
    """
    by_repository: dict[tuple[str, bool], MissingWeights] = {}
    for source in sources:
        found = _missing(source, owner)
        if found is None:
            continue
        key = (found.repository, found.needs_conversion)
        before = by_repository.get(key)
        if before is not None:
            found = before.model_copy(update={"files": (*before.files, *found.files)})
        by_repository[key] = found
    return list(by_repository.values())


def cached_folder(name: str) -> Path | None:
    """The folder of a Hub id in the cache; None if the name is none, or nothing of it is there."""
    place = HubPlace.of(name)
    commit = None if place is None else cached_commit(place.repository)
    if place is None or commit is None:
        return None
    folder = snapshot_folder(place.repository, commit) / place.folder
    return folder if folder.is_dir() else None


def is_missing(source: WeightsSource) -> bool:
    """Whether a source must be fetched before an agent can load it."""
    return _missing(source, "") is not None


def _missing(source: WeightsSource, owner: str) -> MissingWeights | None:
    place = source.place()
    if place is None:
        return None
    commit = cached_commit(place.repository)
    names = set() if commit is None else cached_files(place.repository, commit, place.folder)
    choice = choose(source, names, is_converted=find_converted(source) is not None)
    lacking = [*choice.lacking, *(() if commit is None else _lacking_shards(place, commit, choice))]
    if not lacking and not choice.to_convert:
        return None
    return MissingWeights(
        option=f"{owner}.{source.option}" if owner else source.option,
        repository=place.repository,
        files=tuple(map(place.path_of, lacking or choice.to_convert)),
        needs_conversion=not lacking,
    )


def _lacking_shards(place: HubPlace, commit: str, choice: FileChoice) -> list[str]:
    """Shards that a cached index names and that are not there."""
    folder = snapshot_folder(place.repository, commit) / place.folder
    indices = [name for name in choice.all_files if name.endswith(".index.json")]
    promised = {shard for name in indices for shard in _shards_of(folder / name)}
    return sorted(promised - set(choice.all_files))


def _shards_of(index: Path) -> set[str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name) for name in found.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()  # the library that loads it says what is wrong
