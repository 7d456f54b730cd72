"""Where a model lies: a local folder, or a folder of a Hub repository that has been downloaded."""

from __future__ import annotations

from pathlib import Path

from mora_env_opensora.models import WeightsFileError


def resolve_folder(name: str | Path) -> Path:
    """The folder that `name` stands for: a path, or a Hub id `owner/repository[/folder]` from the local Hub cache.

    Nothing is downloaded here, so that a run starts the same with and without a network.

    Raises:
        WeightsFileError: neither is there.
    """
    if Path(name).is_dir():
        return Path(name)
    owner, _, rest = str(name).partition("/")
    repository, _, inner = rest.partition("/")
    folder = _cached_snapshot(f"{owner}/{repository}", inner) if owner and repository else None
    if folder is None or not (folder / inner).is_dir():
        raise WeightsFileError(
            f"`{name}`: expected a folder, or a Hub id owner/repository[/folder] that has been downloaded; it is "
            "neither. Download it with `huggingface-cli download`, or give the folder"
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
