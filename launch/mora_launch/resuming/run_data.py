"""The data of a run: the list that its first start resolved, and whether its files have changed since then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mora_data.dataset import check_samples, read_dataset, resolve_dataset
from mora_runtime.errors import DatasetError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.files.foreign_file import open_foreign, read_foreign
from mora_runtime.files.foreign_json import parse_object

from mora_launch.config.train_config import TrainConfig
from mora_launch.limits import MAX_DATA_RECORD_NBYTES

_DATASET = "dataset.jsonl"
_RECORD = "files.json"  # of every file of the data: its size, and a hash of parts of it
_PART_NBYTES = 1 << 20
_MAX_NUM_TOLD = 5


def new_dataset(config: TrainConfig, folder: Path, agents: Collection[str]) -> Path:
    """Resolve the data of a first start into `folder`, and record its files. Returns the data set.

    Raises:
        DatasetError: as `resolve_dataset`.
    """
    dataset = resolve_dataset(config.data, config.clip, folder, agents)
    record = {name: _fingerprint(Path(name)) for name in sorted(_files(config, dataset))}
    replace_text(folder / _RECORD, json.dumps(record, indent=1))
    return dataset


def own_dataset(config: TrainConfig, folder: Path) -> Path | None:
    """Return the data set that a run has; None if it has none yet. Clips of files that have changed are decoded.

    Raises:
        DatasetError: a clip is missing or cannot be decoded.
    """
    dataset = folder / _DATASET
    if not dataset.is_file():
        return None
    try:
        record = _recorded(folder)
    except (OSError, ValueError):
        record = {}
    same = {name for name, fingerprint in record.items() if fingerprint and _fingerprint(Path(name)) == fingerprint}
    others = [sample for sample in read_dataset(dataset) if str(sample.video) not in same]
    check_samples(others, config.clip, str(dataset))
    return dataset


def changed_files(folder: Path) -> list[str]:
    """Say which files of a run's data have changed since its first start, a line for each."""
    try:
        record = _recorded(folder)
    except FileNotFoundError:
        return []  # a run of an earlier version
    except (OSError, ValueError) as error:
        return [f"{folder / _RECORD}: cannot be read ({error}), so changes of the data cannot be told"]
    changed = [name for name, fingerprint in record.items() if _fingerprint(Path(name)) != fingerprint]
    lines = [f"{name} has changed since the run started" for name in changed[:_MAX_NUM_TOLD]]
    if len(changed) > _MAX_NUM_TOLD:
        lines.append(f"and so have {len(changed) - _MAX_NUM_TOLD} more files of its data")
    return lines


def _recorded(folder: Path) -> dict[str, Any]:
    """Fingerprint of each file at the run's first start. Raises: OSError. ValueError."""
    return parse_object(read_foreign(folder / _RECORD, MAX_DATA_RECORD_NBYTES))


def _files(config: TrainConfig, dataset: Path) -> Iterator[str]:
    if config.data.path is not None:
        yield str(Path(config.data.path).absolute())
    yield from {str(sample.video) for sample in read_dataset(dataset)}


def _fingerprint(path: Path) -> dict[str, Any] | None:
    """Size and hash of the beginning, the middle and the end of a file; None if it cannot be read.

    Three parts, because a film can have a hundred gigabytes.
    """
    digest = hashlib.sha256()
    try:
        with open(open_foreign(path), "rb") as file:
            nbytes = file.seek(0, 2)
            for start in (0, max(0, (nbytes - _PART_NBYTES) // 2), max(0, nbytes - _PART_NBYTES)):
                file.seek(start)
                digest.update(file.read(_PART_NBYTES))
    except (OSError, DatasetError):
        return None
    return {"nbytes": nbytes, "sha256": digest.hexdigest()}
