"""The Hub, asked with the client that the environment has installed: any of huggingface_hub 0.23 to 2."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mora_runtime.errors import EndpointFailed, EnvironmentFailed

from mora_environment.weights.hub_cache import cache_folder, is_commit
from mora_environment.weights.hub_errors import told_plainly

_BLOB = re.compile(r"[\w-]{1,128}")
_MAX_PATH_LENGTH = 1024


@dataclass(frozen=True)
class RemoteFile:
    """One file of a listing.

    Args:
        blob: name of its content in the cache; None if the Hub does not tell.
    """

    nbytes: int
    blob: str | None


@dataclass(frozen=True)
class Location:
    """From where one file's content comes now; signed addresses expire."""

    url: str
    headers: Mapping[str, str]
    nbytes: int
    blob: str


class Hub:
    """The Hub's client of this environment.

    Raises:
        EnvironmentFailed: it is not installed.
    """

    def __init__(self) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise EnvironmentFailed(
                "expected the package huggingface_hub in this environment, which fetches models: add it to the lock, "
                "or give folders instead of Hub ids"
            ) from None
        self._client: Any = huggingface_hub
        self._token: str | None = huggingface_hub.get_token()

    def listing(self, repository: str, revision: str, option: str) -> tuple[str, dict[str, RemoteFile]]:
        """Commit and files by path of a revision.

        Raises:
            EndpointFailed: the Hub cannot be reached, refuses, or lists a path that leaves the repository.
        """
        with told_plainly(repository, option, has_token=self._token is not None):
            info = self._client.HfApi().model_info(repository, revision=revision, files_metadata=True)
            files = {each.rfilename: _remote_file(each) for each in info.siblings or ()}
        if not is_commit(str(info.sha)):
            raise EndpointFailed(f"{repository}: expected the name of a commit, got {str(info.sha)[:60]!r}")
        for path in files:
            if not is_inside(path):
                raise EndpointFailed(f"{repository}: lists the file {path[:80]!r}, which is outside the repository")
        return str(info.sha), files

    def location(self, repository: str, commit: str, path: str, option: str) -> Location:
        """Ask where a file is; a gate or a wrong token shows here.

        Raises:
            EndpointFailed: as `listing`.
        """
        with told_plainly(repository, option, has_token=self._token is not None):
            url = self._client.hf_hub_url(repository, path, revision=commit)
            found = self._client.get_hf_file_metadata(url, token=self._token)
            headers = self._client.utils.build_hf_headers(token=self._token)
        if found.etag is None or not _BLOB.fullmatch(found.etag) or found.size is None or found.size < 0:
            raise EndpointFailed(
                f"{repository}/{path}: expected an ETag that can name a file, and a size; got {str(found.etag)[:60]!r} "
                f"and {found.size}"
            )
        if _host(found.location) != _host(url):
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        return Location(found.location, headers, int(found.size), found.etag)

    def link(self, repository: str, commit: str, path: str, option: str) -> None:
        """Put a file whose content is in the cache into the snapshot of its commit."""
        with told_plainly(repository, option, has_token=self._token is not None):
            self._client.hf_hub_download(
                repository, path, revision=commit, cache_dir=str(cache_folder()), token=self._token
            )


def is_inside(path: str) -> bool:
    """Whether a path of a listing stays inside its repository."""
    parts = path.split("/")
    is_plain = all(part not in ("", ".", "..") for part in parts) and not set(path) & set("\\\0\r\n")
    return is_plain and len(path) <= _MAX_PATH_LENGTH and not os.path.isabs(path)


def _remote_file(sibling: Any) -> RemoteFile:
    large = sibling.lfs
    sha256 = large.get("sha256") if isinstance(large, dict) else getattr(large, "sha256", None)
    return RemoteFile(int(sibling.size or 0), sha256 or sibling.blob_id)


def _host(url: str) -> tuple[str, str]:
    found = urlsplit(url)
    return found.scheme, found.netloc
