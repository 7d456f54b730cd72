"""What a checkpoint's manifest says, checked: it may be a stranger's. Starts without torch.

`commit_record` reads manifests here, and so does everything that uses a checkpoint: verify, export, generate, serve,
resume. What lies in the folder is compared with it by `CheckpointInfo.check_files`.
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


@dataclass(frozen=True)
class CheckpointInfo:
    """What the commit record and manifest say of a committed checkpoint."""

    step: int  # number of steps done
    folder: str  # step-00000012
    num_replicas: int
    lock_hashes: dict[str, str]
    files: tuple[ShardFile, ...]

    def check_files(self, root: Path) -> None:
        """Compare what lies in the checkpoint's folder with the manifest, by name.

        Libraries load what they find in a folder: a file of which the manifest says nothing, or a link, would be loaded
        unseen.

        Raises:
            CheckpointError: naming the first link, device, pipe, or file that the manifest does not name.
        """
        known = {file.path for file in self.files} | {MANIFEST}
        for number, (path, is_file) in enumerate(_entries(root, self.folder)):
            hidden = is_file and path.rpartition("/")[2].startswith(".")  # of file systems and file managers
            if number > 2 * MAX_NUM_FILES or not (is_file and (hidden or path in known)):
                what = "which its manifest does not name" if is_file else "a link, device or pipe"
                raise CheckpointError(
                    f"checkpoint {self.folder} holds `{shown_line(path, 120)}`, {what}; it is foreign or was changed: "
                    "remove that, or take another checkpoint"
                )


def is_folder_name(name: Any) -> bool:
    """Whether it is `step-` and eight digits."""
    return isinstance(name, str) and _FOLDER.fullmatch(name) is not None


def checked_manifest(content: Mapping[str, Any], folder: str) -> CheckpointInfo:
    """The manifest of `folder`.

    Raises:
        CheckpointError: a key is missing, a value is of another kind, a name leads elsewhere, or it is another's.
    """
    if missing := sorted(_KEYS - content.keys()):
        raise CheckpointError(f"checkpoint {folder}: the manifest lacks `{missing[0]}`; it is foreign")
    if unknown := sorted(content.keys() - _KEYS - {"format"}):
        raise CheckpointError(f"checkpoint {folder}: the manifest has `{shown_line(unknown[0], 60)}`; it is foreign")
    if content.get("format", FORMAT_VERSION) != FORMAT_VERSION or isinstance(content.get("format"), bool | float):
        raise CheckpointError(f"checkpoint {folder}: the manifest is of another format than {FORMAT_VERSION}")
    if content["folder"] != folder:
        name = shown_line(ascii(content["folder"]), 60)
        raise CheckpointError(f"checkpoint {folder}: its manifest says it is {name}; it was moved or is foreign")
    step = _integer(content, folder, "step", 0, 10**8 - 1)
    if step != int(folder.removeprefix("step-")):
        raise CheckpointError(f"checkpoint {folder}: its manifest says it is of step {step}; it is foreign")
    replicas = _integer(content, folder, "num_replicas", 1, _MAX_REPLICAS)
    return CheckpointInfo(step, folder, replicas, _lock_hashes(content, folder), _files(content["files"], folder))


def _integer(content: Mapping[str, Any], folder: str, key: str, least: int, most: int) -> int:
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CheckpointError(
            f"checkpoint {folder}: `{key}` must be an integer from {least} to {most}, got "
            f"{shown_line(ascii(value), 60)}; the manifest is foreign"
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
            f"checkpoint {folder}: `lock_hashes` must be short texts by name; the manifest is foreign"
        )
    return dict(found)


def _files(found: Any, folder: str) -> tuple[ShardFile, ...]:
    if not isinstance(found, list) or len(found) > MAX_NUM_FILES:
        raise CheckpointError(f"checkpoint {folder}: `files` must be a list of at most {MAX_NUM_FILES}; it is foreign")
    files = tuple(ShardFile.read(each) for each in found)
    seen: set[str] = set()
    for file in files:
        role, _, rest = file.path.partition("/")
        if _ROLE.fullmatch(role) is None or not rest:
            raise CheckpointError(f"checkpoint file `{file.path}`: expected ROLE/FILE, ROLE as agents are named")
        if file.path.lower() in seen:  # the same file on some file systems
            raise CheckpointError(f"checkpoint file `{file.path}` comes twice; the manifest is foreign")
        seen.add(file.path.lower())
    return files


def _entries(root: Path, name: str) -> Iterator[tuple[str, bool]]:
    """(path, whether it is a regular file) of everything below a checkpoint's folder but its folders."""
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
        raise CheckpointError(f"checkpoint {name}: cannot be looked through: {error.strerror}") from None
