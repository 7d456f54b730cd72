"""The Hub's cache of this machine, read without a library of the Hub.

Its layout: `models--OWNER--NAME/refs/main` contains a commit, `snapshots/COMMIT/PATH` links to `blobs/ETAG`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder() -> Path:
    """The folder in which libraries of the Hub store models: HF_HUB_CACHE, or `hub/` in HF_HOME."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named is not None:
        return _expanded(named)
    home = os.environ.get("HF_HOME")
    if home is None:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return _expanded(home) / "hub"


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path))).absolute()


def repository_folder(repository: str) -> Path:
    """Folder of a repository in the cache, which may not exist."""
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def is_commit(text: str) -> bool:
    """Whether a text is the name of a commit, and so can be the name of a folder."""
    return _COMMIT.fullmatch(text) is not None


def cached_commit(repository: str) -> str | None:
    """The commit that `main` names in the cache; libraries load that one when they are offline."""
    try:
        text = (repository_folder(repository) / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if is_commit(text) else None


def snapshot_folder(repository: str, commit: str) -> Path:
    """Folder of one commit's files, which may not exist."""
    return repository_folder(repository) / "snapshots" / commit


def cached_files(repository: str, commit: str, folder: str) -> set[str]:
    """Names of the whole files of one folder of a cached repository, without its subfolders."""
    try:
        return {path.name for path in (snapshot_folder(repository, commit) / folder).iterdir() if path.is_file()}
    except OSError:
        return set()
