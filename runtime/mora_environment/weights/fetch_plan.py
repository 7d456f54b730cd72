"""What has to be downloaded and converted for some sources, asked of the Hub before anything is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mora_runtime.errors import EndpointFailed

from mora_environment.weights.converted_folder import converted_folder, find_converted
from mora_environment.weights.fetch_answer import PlannedConversion, PlannedFile
from mora_environment.weights.file_choice import FileChoice, choose
from mora_environment.weights.hub import Hub, RemoteFile
from mora_environment.weights.hub_cache import cached_commit, cached_files, repository_folder
from mora_environment.weights.presence import is_missing
from mora_environment.weights.weights_source import HubPlace, WeightsSource

_ITEMSIZES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class ConversionTask:
    """One conversion: the files of `source` at this commit."""

    source: WeightsSource
    files: tuple[str, ...]
    planned: PlannedConversion


@dataclass
class FetchPlan:
    """Everything to fetch. A file that several agents load occurs once.

    Args:
        commits: by repository, which commit is fetched.
        options: by repository, the option that names it, for errors.
    """

    commits: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    files: dict[tuple[str, str], PlannedFile] = field(default_factory=dict)
    conversions: dict[Path, ConversionTask] = field(default_factory=dict)


def plan_fetch(hub: Hub, sources: Iterable[WeightsSource]) -> FetchPlan:
    """Plan the fetch of those sources that are not on this machine.

    The cache keeps the commit that it has: a fetch completes it, and does not replace the files of other agents.

    Raises:
        EndpointFailed: the Hub cannot be reached, refuses, or lacks a file.
    """
    plan = FetchPlan()
    for repository, found in _by_repository(sources).items():
        missing = [(place, source) for place, source in found if is_missing(source)]
        if missing:
            option = missing[0][1].option
            commit, listing = _listing(hub, repository, option)
            plan.commits[repository], plan.options[repository] = commit, option
            is_new = commit != cached_commit(repository)
            for place, source in found if is_new else missing:
                _add(plan, place, source, listing, is_new=is_new)
            _check_access(hub, plan, repository)
    return plan


def _by_repository(sources: Iterable[WeightsSource]) -> dict[str, list[tuple[HubPlace, WeightsSource]]]:
    found: dict[str, list[tuple[HubPlace, WeightsSource]]] = {}
    for source in sources:
        place = source.place()
        if place is not None:
            found.setdefault(place.repository, []).append((place, source))
    return found


def _listing(hub: Hub, repository: str, option: str) -> tuple[str, dict[str, RemoteFile]]:
    """The files of the commit in the cache, or of `main` if there is none or the Hub has it no more."""
    commit = cached_commit(repository)
    if commit is not None:
        try:
            return hub.listing(repository, commit, option)
        except EndpointFailed as error:
            if type(error.__cause__).__name__ != "RevisionNotFoundError":
                raise
    return hub.listing(repository, "main", option)


def _add(
    plan: FetchPlan, place: HubPlace, source: WeightsSource, listing: dict[str, RemoteFile], *, is_new: bool
) -> None:
    start = f"{place.folder}/" if place.folder else ""
    names = {path.removeprefix(start) for path in listing if path.startswith(start)}
    is_converted = not is_new and find_converted(source) is not None
    choice = choose(source, {name for name in names if "/" not in name}, is_converted=is_converted)
    if choice.lacking:
        raise EndpointFailed(
            f"{place}: expected {', '.join(choice.lacking)} there, which the agent loads; see "
            f"https://huggingface.co/{place.repository} and correct `{source.option}`"
        )
    commit = plan.commits[place.repository]
    cached = cached_files(place.repository, commit, place.folder)
    for name in choice.all_files:
        path = place.path_of(name)
        if name not in cached and (place.repository, path) not in plan.files:
            plan.files[place.repository, path] = _planned_file(place.repository, path, listing[path])
    if choice.to_convert:
        task = _conversion(place, source, choice, listing)
        plan.conversions[converted_folder(place, commit, task.planned.dtype)] = task


def _planned_file(repository: str, path: str, remote: RemoteFile) -> PlannedFile:
    blob = None if remote.blob is None else repository_folder(repository) / "blobs" / remote.blob
    num_here = 0 if blob is None else _num_here(blob)
    missing = max(0, remote.nbytes - num_here)
    return PlannedFile(repository=repository, path=path, nbytes=remote.nbytes, num_missing_nbytes=missing)


def _num_here(blob: Path) -> int:
    """Bytes of a blob that are in the cache, whole or from an interrupted download."""
    for path in (blob, blob.with_name(f"{blob.name}.incomplete")):
        try:
            return path.stat().st_size
        except OSError:
            continue
    return 0


def _conversion(
    place: HubPlace, source: WeightsSource, choice: FileChoice, listing: dict[str, RemoteFile]
) -> ConversionTask:
    conversion = source.conversion
    assert conversion is not None
    nbytes = sum(listing[place.path_of(name)].nbytes for name in choice.to_convert)
    if conversion.num_parameters is not None:
        nbytes = conversion.num_parameters * _ITEMSIZES[conversion.dtype]
    planned = PlannedConversion(
        repository=place.repository, path=place.path_of(conversion.file), dtype=conversion.dtype, nbytes=nbytes
    )
    return ConversionTask(source, choice.to_convert, planned)


def _check_access(hub: Hub, plan: FetchPlan, repository: str) -> None:
    """Ask for one file, because the listing of a gated repository is open to everybody."""
    path = next((path for owner, path in plan.files if owner == repository), None)
    if path is not None:
        hub.location(repository, plan.commits[repository], path, plan.options[repository])
