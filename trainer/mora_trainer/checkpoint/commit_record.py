"""Reading the commit record and the manifests of a run's checkpoints. Starts without torch.

`checkpointer` writes them; everything that resumes from or inspects a checkpoint reads them here.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from mora_runtime.errors import CheckpointError
from mora_runtime.files.foreign_file import open_beneath
from mora_runtime.files.foreign_json import parse_object

from mora_trainer.checkpoint.manifest import FORMAT_VERSION, MANIFEST, CheckpointInfo, checked_manifest, is_folder_name

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "RECORD",
    "CheckpointInfo",
    "check_folder",
    "committed",
    "is_folder_name",
    "read_manifest",
]

RECORD = "COMMITTED"
_MAX_NBYTES = 16 << 20


def committed(checkpoints: Path) -> CheckpointInfo | None:
    """The checkpoint that a resume starts from, or None when nothing has been committed.

    Raises:
        CheckpointError: the record or its manifest is unreadable or belongs to another folder.
    """
    check_folder(checkpoints)
    if not _is_there(checkpoints / RECORD):
        return None
    content = _read_json(checkpoints, RECORD)
    folder = content.get("folder")
    if not is_folder_name(folder):
        raise CheckpointError(f"{RECORD}: `folder` must be `step-` and eight digits, got {ascii(folder)[:60]}")
    info = read_manifest(checkpoints, str(folder))
    if "step" in content and (content["step"] != info.step or isinstance(content["step"], bool | float)):
        raise CheckpointError(f"{RECORD}: has step {ascii(content['step'])[:60]} for {folder}; mora did not write it")
    return info


def read_manifest(checkpoints: Path, folder: str) -> CheckpointInfo:
    """Read the manifest of one checkpoint folder; CheckpointError if it is missing or invalid."""
    check_folder(checkpoints)
    if not is_folder_name(folder):
        raise CheckpointError(f"checkpoint {ascii(folder)[:60]}: expected `step-` and eight digits")
    return checked_manifest(_read_json(checkpoints, f"{folder}/{MANIFEST}"), folder)


def check_folder(checkpoints: Path) -> None:
    """Refuse a run whose checkpoints folder is a link, because a resume deletes old checkpoints in it."""
    if checkpoints.is_symlink():
        raise CheckpointError(f"{checkpoints}: is a symbolic link; expected the folder itself inside its run")


def _is_there(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()
        return True
    return False


def _read_json(checkpoints: Path, name: str) -> dict[str, Any]:
    try:
        with open(open_beneath(checkpoints, name), "rb") as file:
            text = file.read(_MAX_NBYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{name}: cannot be read: {error.strerror}") from None
    if len(text) > _MAX_NBYTES:
        raise CheckpointError(f"{name}: expected at most {_MAX_NBYTES} bytes, got more; mora did not write it")
    try:
        return parse_object(text)
    except ValueError as error:
        raise CheckpointError(f"{name}: cannot be read: {error}") from None
