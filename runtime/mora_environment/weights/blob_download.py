"""Downloads one file's content into the Hub's cache; a download that was killed continues where it ended.

Not every version of the Hub's client continues the download of another process, and a single answer of the Hub has at
most 50 GB. So content is asked for in ranges, and written to `ETAG.incomplete` until it is whole.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

from mora_runtime.errors import EndpointFailed, StorageError
from mora_runtime.files.durable_files import sha256_of

from mora_environment.weights.hub import Location
from mora_environment.weights.shared_lock import lock_where_possible

_RANGE_NBYTES = 1 << 30
_CHUNK_NBYTES = 1 << 20
_TIMEOUT_S = 30.0
_MAX_NUM_FAILURES = 5  # in a row, without one new byte
_LOCK_DEADLINE_S = 24 * 3600.0  # another fetch may be downloading the same file
_SHA256_LENGTH = hashlib.sha256().digest_size * 2


def download_blob(locate: Callable[[], Location], blobs: Path, shown: str, tell_nbytes: Callable[[int], None]) -> Path:
    """Download a file's content unless it is in the cache, and return its path there.

    Args:
        locate: asks the Hub where the content is; called again for every range, because addresses expire.
        blobs: folder of the repository's contents.
        shown: name of the file, for errors.
        tell_nbytes: called with the number of new bytes.

    Raises:
        EndpointFailed: the server ends the connection again and again, or sends something else.
        StorageError: the disk is full or not writable.
    """
    location = locate()
    final, partial = blobs / location.blob, blobs / f"{location.blob}.incomplete"
    try:
        blobs.mkdir(parents=True, exist_ok=True)
        while not final.exists():
            with open(partial, "ab") as handle:
                lock_where_possible(handle.fileno(), _LOCK_DEADLINE_S, shown=str(partial))
                if not _is_still(partial, handle):
                    continue  # the process that had the lock has finished or removed it
                _complete(handle, location, locate, shown, tell_nbytes)
                _check_content(partial, location, shown)
                partial.chmod(0o644)
                partial.replace(final)
    except OSError as error:
        raise StorageError(f"{shown}: cannot be written to {partial}: {error.strerror or error}") from None
    return final


def _is_still(path: Path, handle: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False


def _complete(
    handle: BinaryIO,
    location: Location,
    locate: Callable[[], Location],
    shown: str,
    tell_nbytes: Callable[[int], None],
) -> None:
    """Append ranges until the file has its size."""
    num_failures = 0
    if handle.tell() > location.nbytes:
        handle.truncate(0)
    while (start := handle.seek(0, os.SEEK_END)) < location.nbytes:
        try:
            _append_range(handle, start, location, tell_nbytes)
        except (_Unwritable, EndpointFailed):
            raise
        except (OSError, http.client.HTTPException) as error:
            num_failures = 0 if handle.seek(0, os.SEEK_END) > start else num_failures + 1
            if num_failures >= _MAX_NUM_FAILURES:
                raise EndpointFailed(
                    f"{shown}: {num_failures} attempts in a row brought no byte ({type(error).__name__}: {error}); "
                    f"{start} of {location.nbytes} bytes are here, and the next fetch continues there"
                ) from None
            time.sleep(0.2 * 2**num_failures if num_failures else 0.0)  # an overloaded server needs a pause
        if handle.seek(0, os.SEEK_END) < location.nbytes:
            location = _located_again(location, locate, shown)


def _located_again(before: Location, locate: Callable[[], Location], shown: str) -> Location:
    """Where the rest is; the address of a large file is signed and expires."""
    found = locate()
    if (found.blob, found.nbytes) != (before.blob, before.nbytes):
        raise EndpointFailed(f"{shown}: has changed on the Hub during the download; fetch again")
    return found


class _Unwritable(OSError):
    """The disk refuses a write, which another attempt would not change."""


def _append_range(handle: BinaryIO, start: int, location: Location, tell_nbytes: Callable[[int], None]) -> None:
    end = min(start + _RANGE_NBYTES, location.nbytes)
    headers = {**location.headers, "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    with _opener().open(urllib.request.Request(location.url, headers=headers), timeout=_TIMEOUT_S) as answer:
        if answer.status == 200:  # the server knows no ranges and sends everything
            handle.truncate(0)
            start, end = 0, location.nbytes
        left = end - start
        while left and (chunk := answer.read(min(_CHUNK_NBYTES, left))):
            _write(handle, chunk)
            tell_nbytes(len(chunk))
            left -= len(chunk)
    handle.flush()
    if left:
        raise http.client.IncompleteRead(b"", left)


def _write(handle: BinaryIO, chunk: bytes) -> None:
    try:
        handle.write(chunk)
    except OSError as error:
        raise _Unwritable(error.errno, error.strerror) from None


def _check_content(path: Path, location: Location, shown: str) -> None:
    """Large files are named by their SHA-256, so a damaged one shows."""
    if len(location.blob) == _SHA256_LENGTH and (found := sha256_of(path)) != location.blob:
        path.unlink()
        raise EndpointFailed(f"{shown}: arrived damaged: expected SHA-256 {location.blob}, got {found}; fetch again")


class _SameHostRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects without giving the token to another host."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request for the new address."""
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and made.host != req.host:
            made.remove_header("Authorization")
        return made


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SameHostRedirects(), urllib.request.HTTPSHandler(context=_certificates()))


def _certificates() -> ssl.SSLContext:
    """Those that the user names, else those of `certifi`, which the Hub's client uses too, else the system's."""
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    if named is None:
        try:
            named = str(importlib.import_module("certifi").where())
        except ImportError:
            named = None
    return ssl.create_default_context(cafile=named)
