"""Finds a model: a local folder, or a folder of a downloaded Hub repository."""

from __future__ import annotations

from pathlib import Path

from mora_env_opensora.models import WeightsFileError


def resolve_folder(name: str | Path) -> Path:
    """The folder of `name`, which is a path or a Hub id `owner/repository[/folder]` in the local Hub cache.

    It downloads nothing, so that a run starts the same with and without a network.

    Raises:
        WeightsFileError: neither exists.
    """
    if Path(name).is_dir():
        return Path(name)
    owner, _, rest = str(name).partition("/")
    repository, _, inner = rest.partition("/")
    folder = _cached_snapshot(f"{owner}/{repository}", inner) if owner and repository else None
    if folder is None or not (folder / inner).is_dir():
        raise WeightsFileError(
            f"`{name}`: expected a folder, or a Hub id owner/repository[/folder] that has been downloaded; it is "
            "neither. Run `./mora models fetch CONFIG`, or give the folder"
        )
    return folder / inner


def _cached_snapshot(repository: str, inner: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    patterns = [f"{inner}/*"] if inner else None
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
