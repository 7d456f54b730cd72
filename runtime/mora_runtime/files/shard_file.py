"""One file of a checkpoint, as its manifest names it. Starts without torch.

A manifest may be untrusted: every name is checked when it is read, and the file is opened below its checkpoint's
folder, without following links.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import CheckpointError
from mora_runtime.files.foreign_file import ForeignFileRefused, open_beneath
from mora_runtime.limits import MAX_SHARD_NAME_LENGTH, MAX_SHARD_NAME_PARTS

_CHUNK_NBYTES = 1 << 20
# Plain ASCII names: no hidden files, no names that another file system would store differently, and nothing that a
# shell or a terminal interprets.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FOREIGN = "mora did not write this manifest"


@dataclass(frozen=True)
class ShardFile:
    """One file of a checkpoint: path relative to the checkpoint's folder, size, SHA-256."""

    path: str
    nbytes: int
    sha256: str

    @classmethod
    def read(cls, content: Any) -> ShardFile:
        """Parse an entry of a manifest. Raises: CheckpointError: a key or value does not fit."""
        if not isinstance(content, dict) or content.keys() != {"path", "nbytes", "sha256"}:
            raise CheckpointError(f"expected files with only `path`, `nbytes` and `sha256`; {_FOREIGN}")
        path, nbytes, sha256 = content["path"], content["nbytes"], content["sha256"]
        check_name(path)
        if isinstance(nbytes, bool) or not isinstance(nbytes, int) or not 0 <= nbytes < 1 << 63:
            raise CheckpointError(f"checkpoint file `{path}`: `nbytes` must be an integer >= 0, got {_short(nbytes)}")
        if not isinstance(sha256, str) or _SHA256.fullmatch(sha256) is None:
            raise CheckpointError(f"checkpoint file `{path}`: `sha256` must be 64 hex digits, got {_short(sha256)}")
        return cls(path, nbytes, sha256)


def check_name(name: Any) -> None:
    """Refuse anything but a plain relative path. Raises: CheckpointError."""
    if not isinstance(name, str):
        raise CheckpointError(f"checkpoint file {_short(name)}: expected a relative path; {_FOREIGN}")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise CheckpointError(f"checkpoint file {_short(name)} is outside its checkpoint; {_FOREIGN}")
    if len(name) > MAX_SHARD_NAME_LENGTH or len(parts) > MAX_SHARD_NAME_PARTS:
        raise CheckpointError(
            f"checkpoint file {_short(name)}: expected at most {MAX_SHARD_NAME_LENGTH} characters and "
            f"{MAX_SHARD_NAME_PARTS} parts; {_FOREIGN}"
        )
    if not all(_PART.fullmatch(part) for part in parts):
        raise CheckpointError(
            f"checkpoint file {_short(name)}: expected names of letters, digits, `_`, `-` and `.` that do not begin "
            f"with `.`, joined by `/`; {_FOREIGN}"
        )


def verify(file: ShardFile, root: Path, copy: Callable[[bytes], object] = len) -> Path:
    """Check that a file's size and hash match the manifest, and return its path.

    Args:
        copy: called with each piece of the hashed bytes.

    Raises:
        CheckpointError: the name or a link leaves the folder; the file is missing, not regular, truncated or changed.
    """
    check_name(file.path)
    try:
        descriptor = open_beneath(root, file.path)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint file `{file.path}` is missing; resume from an earlier checkpoint") from None
    except ForeignFileRefused as error:
        raise CheckpointError(f"checkpoint file `{file.path}` is missing: {error.strerror}") from None
    except NotADirectoryError:
        raise CheckpointError(
            f"checkpoint file `{file.path}` is outside its checkpoint: a folder on the way is a link or not a folder"
        ) from None
    except OSError as error:
        raise CheckpointError(f"checkpoint file `{file.path}` cannot be read: {error.strerror}") from None
    digest, nbytes = hashlib.sha256(), 0
    with open(descriptor, "rb", buffering=0) as handle:
        # reading one byte too many is enough to detect a wrong size
        while nbytes <= file.nbytes and (chunk := handle.read(min(_CHUNK_NBYTES, file.nbytes + 1 - nbytes))):
            digest.update(chunk)
            nbytes += len(chunk)
            copy(chunk)
    if nbytes != file.nbytes or digest.hexdigest() != file.sha256:
        found = (root / file.path).stat(follow_symlinks=False).st_size
        raise CheckpointError(
            f"checkpoint file `{file.path}`: expected {file.nbytes} bytes with SHA-256 {file.sha256[:12]}..., got "
            f"{found} bytes with another hash; it was changed or truncated: resume from an earlier checkpoint"
        )
    return root / file.path


def _short(value: Any) -> str:
    """The value as an ASCII literal, so without control characters, cut to 100 characters."""
    text = ascii(value if not isinstance(value, str) else value[:80])
    return text if len(text) <= 100 else text[:97] + "..."
