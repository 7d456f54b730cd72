"""A checkpoint's manifest, checked because it may be untrusted. Starts without torch.

`commit_record` parses manifests here for everything that uses a checkpoint: verify, export, generate, serve, resume.
`CheckpointInfo.check_files` compares the folder's files with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.errors import CheckpointError
from mora_runtime.files.shard_file import ShardFile
from mora_runtime.files.shown_text import shown_line

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
MAX_NUM_FILES = 100_000
_ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")  # as configurations name agents
_FOLDER = re.compile(r"step-[0-9]{8}")
_KEYS = {"step", "folder", "num_replicas", "lock_hashes", "files"}
_MAX_REPLICAS = 100_000
_MAX_HASHES = 64
_MAX_HASH_LENGTH = 256
_FOREIGN = "mora did not write this manifest"


@dataclass(frozen=True)
class CheckpointInfo:
    """The content of a checkpoint's manifest."""

    step: int  # number of steps done
    folder: str  # step-00000012
    num_replicas: int
    lock_hashes: dict[str, str]
    files: tuple[ShardFile, ...]

    def check_files(self, root: Path) -> None:
        """Compare the names of all files in the checkpoint's folder with the manifest.

        Libraries load the files that they find in a folder: a link, or a file that the manifest does not name, would be
        loaded unchecked.

        Raises:
            CheckpointError: for the first link, device, pipe, or file that the manifest does not name.
        """
        known = {file.path for file in self.files} | {MANIFEST}
        for number, (path, is_file) in enumerate(_entries(root, self.folder)):
            hidden = is_file and path.rpartition("/")[2].startswith(".")  # of file systems and file managers
            if number > 2 * MAX_NUM_FILES or not (is_file and (hidden or path in known)):
                what = "which its manifest does not name" if is_file else "a link, device or pipe"
                raise CheckpointError(
                    f"checkpoint {self.folder} contains `{shown_line(path, 120)}`, {what}; mora did not write that: "
                    "remove it, or use another checkpoint"
                )


def is_folder_name(name: Any) -> bool:
    """True for `step-` and eight digits."""
    return isinstance(name, str) and _FOLDER.fullmatch(name) is not None


def checked_manifest(content: Mapping[str, Any], folder: str) -> CheckpointInfo:
    """Check the manifest of `folder` and return its content.

    Raises:
        CheckpointError: a key is missing or unknown, a value or file name is invalid, or it is of another checkpoint.
    """
    if missing := sorted(_KEYS - content.keys()):
        raise CheckpointError(f"checkpoint {folder}: the manifest lacks `{missing[0]}`; mora did not write it")
    if unknown := sorted(content.keys() - _KEYS - {"format"}):
        name = shown_line(unknown[0], 60)
        raise CheckpointError(f"checkpoint {folder}: unknown key `{name}` in the manifest; mora did not write it")
    if content.get("format", FORMAT_VERSION) != FORMAT_VERSION or isinstance(content.get("format"), bool | float):
        raise CheckpointError(f"checkpoint {folder}: the manifest has another format than {FORMAT_VERSION}")
    if content["folder"] != folder:
        name = shown_line(ascii(content["folder"]), 60)
        raise CheckpointError(f"checkpoint {folder}: its manifest is of {name}; expected the one of {folder}")
    step = _integer(content, folder, "step", 0, 10**8 - 1)
    if step != int(folder.removeprefix("step-")):
        raise CheckpointError(f"checkpoint {folder}: its manifest is of step {step}; mora did not write it")
    replicas = _integer(content, folder, "num_replicas", 1, _MAX_REPLICAS)
    return CheckpointInfo(step, folder, replicas, _lock_hashes(content, folder), _files(content["files"], folder))


def _integer(content: Mapping[str, Any], folder: str, key: str, least: int, most: int) -> int:
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CheckpointError(
            f"checkpoint {folder}: `{key}` must be an integer from {least} to {most}, got "
            f"{shown_line(ascii(value), 60)}; {_FOREIGN}"
        )
    return value


def _lock_hashes(content: Mapping[str, Any], folder: str) -> dict[str, str]:
    found = content["lock_hashes"]
    if (
        not isinstance(found, dict)
        or len(found) > _MAX_HASHES
        or not all(
            isinstance(value, str) and len(name) <= _MAX_HASH_LENGTH and len(value) <= _MAX_HASH_LENGTH
            for name, value in found.items()
        )
    ):
        raise CheckpointError(
            f"checkpoint {folder}: `lock_hashes` must be an object of at most {_MAX_HASHES} short texts; {_FOREIGN}"
        )
    return dict(found)


def _files(found: Any, folder: str) -> tuple[ShardFile, ...]:
    if not isinstance(found, list) or len(found) > MAX_NUM_FILES:
        raise CheckpointError(f"checkpoint {folder}: `files` must be a list of at most {MAX_NUM_FILES}; {_FOREIGN}")
    files = tuple(ShardFile.read(each) for each in found)
    seen: set[str] = set()
    for file in files:
        role, _, rest = file.path.partition("/")
        if _ROLE.fullmatch(role) is None or not rest:
            raise CheckpointError(f"checkpoint file `{file.path}`: expected ROLE/FILE, where ROLE is an agent's name")
        if file.path.lower() in seen:  # the same file on a case-insensitive file system
            raise CheckpointError(f"checkpoint file `{file.path}` occurs twice; {_FOREIGN}")
        seen.add(file.path.lower())
    return files


def _entries(root: Path, name: str) -> Iterator[tuple[str, bool]]:
    """(path, whether it is a regular file) of everything below a checkpoint's folder except folders."""
    waiting = [""]
    try:
        while waiting:
            prefix = waiting.pop()
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path + "/")
                    else:
                        yield path, entry.is_file(follow_symlinks=False)
    except OSError as error:
        raise CheckpointError(f"checkpoint {name}: cannot be listed: {error.strerror}") from None
