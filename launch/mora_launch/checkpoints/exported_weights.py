"""`mora checkpoint export`: copies all agents' weights to a folder of the user, or none of them.

The checkpoint may come from a stranger. Files are hashed while they are copied, so the copy is what was checked. The
copies are created in a new folder with a random name, and moved to their final place when all are complete. Adapters
that leave in another format are converted there, from the copies.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from mora_runtime.errors import CheckpointError, MoraError
from mora_runtime.files.fresh_file import write_fresh
from mora_runtime.files.shard_file import ShardFile, verify
from mora_trainer.checkpoint.commit_record import CheckpointInfo

Convert = Callable[[Path, Path], None]  # writes what is in the first folder into the second, which is empty

_NOTE = "exported.json"


def export_weights(
    info: CheckpointInfo,
    root: Path,
    target: Path,
    *,
    part: str,
    agents: Sequence[str],
    converters: Mapping[str, Convert] | None = None,
    told: Mapping[str, str] | None = None,
) -> list[Path]:
    """Copy the files of these agents' `part` to `target/<agent>/`; return these folders.

    Args:
        root: the checkpoint's folder.
        part: `weights` or `ema`.
        agents: that have this part.
        converters: by agent, of those whose files are converted.
        told: written into the note next to the folders, besides checkpoint, step and part.

    Raises:
        MoraError: a file is damaged, the target already exists, or a conversion or a write failed. The target is then
            unchanged.
    """
    chosen = [file for file in info.files if file.path.split("/")[0] in agents and file.path.split("/")[1] == part]
    for agent in agents:
        if os.path.lexists(target / agent):
            raise CheckpointError(f"{target / agent}: already exists; choose another --output")
    info.check_files(root)
    note = {"step": info.step, "part": part, "checkpoint": str(root), **(told or {})}
    try:
        _export(chosen, agents, root, target, converters or {}, json.dumps(note, indent=1) + "\n")
    except OSError as error:
        raise CheckpointError(f"{target}: {error.strerror}; nothing was exported") from None
    except MoraError as error:
        raise CheckpointError(f"{error}; nothing was exported") from None
    return [target / agent for agent in agents]


def _export(
    chosen: Sequence[ShardFile],
    agents: Sequence[str],
    root: Path,
    target: Path,
    converters: Mapping[str, Convert],
    note: str,
) -> None:
    is_new = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    partial = target / f".export-{secrets.token_hex(12)}"
    placed: list[Path] = []
    try:
        partial.mkdir(mode=0o700)
        for file in chosen:
            _copy(file, root, partial)
        for agent, convert in converters.items():
            _convert(partial / agent, convert)
        for agent in agents:
            if os.path.lexists(target / agent):
                raise FileExistsError(0, f"`{agent}` was created by another process meanwhile")
            (partial / agent).rename(target / agent)
            placed.append(target / agent)
        write_fresh(target / _NOTE, note)
    except BaseException:
        for folder in placed:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                target.rmdir()
        raise
    partial.rmdir()


def _copy(file: ShardFile, root: Path, partial: Path) -> None:
    """Copy one file while hashing it; `AGENT/PART/REST` becomes `AGENT/REST`."""
    agent, _, *rest = file.path.split("/")
    copy = partial.joinpath(agent, *rest)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with _created(copy) as handle:
        verify(file, root, handle.write)


def _convert(folder: Path, convert: Convert) -> None:
    """Replace a folder by what `convert` makes of it."""
    converted = folder.with_name(f"{folder.name}.converted")
    converted.mkdir()
    convert(folder, converted)
    shutil.rmtree(folder)
    converted.rename(folder)


def _created(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, 0o666), "wb")
