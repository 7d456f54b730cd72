"""What the commit record and the manifests of a run say of its checkpoints. Starts without torch.

Written by `checkpoint`, which has the whole account; read by whoever goes on from a checkpoint, or looks at one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mora_runtime.durable_files import ShardFile
from mora_runtime.errors import CheckpointError

RECORD = "COMMITTED"
MANIFEST = "manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CheckpointInfo:
    """What the commit record and manifest say of a committed checkpoint."""

    step: int  # number of steps done
    folder: str  # step-00000012
    num_replicas: int
    lock_hashes: dict[str, str]
    files: tuple[ShardFile, ...]


def committed(checkpoints: Path) -> CheckpointInfo | None:
    """The checkpoint a resume starts from, or None when nothing has been committed.

    Raises:
        CheckpointError: the record or its manifest is unreadable or belongs to another folder.
    """
    record = checkpoints / RECORD
    if not record.exists():
        return None
    return read_manifest(checkpoints, str(_read_json(record).get("folder")))


def read_manifest(checkpoints: Path, folder: str) -> CheckpointInfo:
    """Read the manifest of one checkpoint folder; CheckpointError where it does not fit."""
    content = _read_json(checkpoints / folder / MANIFEST)
    try:
        files = tuple(ShardFile(**file) for file in content["files"])
        info = CheckpointInfo(
            content["step"], content["folder"], content["num_replicas"], content["lock_hashes"], files
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {folder}: the manifest lacks or misnames {error}; it is foreign") from None
    if info.folder != folder:
        raise CheckpointError(f"checkpoint {folder}: its manifest says it is {info.folder}; it was moved or is foreign")
    return info


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name}: expected a JSON object, got {type(content).__name__}")
    return content
