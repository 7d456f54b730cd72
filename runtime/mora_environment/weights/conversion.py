"""Converts weights that are published only as pickle to safetensors, once, so that no server reads the pickle.

Only `torch.load(weights_only=True)` reads the file, which refuses everything but tensors and plain values. The file is
mapped and written tensor by tensor, so memory does not grow with its size.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from mora_runtime.errors import CheckpointError
from mora_runtime.files.durable_files import replace_text, sha256_of, sync

from mora_environment.weights.converted_folder import (
    RECORD_FILE,
    WEIGHTS_FILE,
    ConversionRecord,
    SourceFile,
    converted_folder,
    find_converted,
)
from mora_environment.weights.hub_cache import snapshot_folder
from mora_environment.weights.safetensors_stream import write_stream
from mora_environment.weights.shared_lock import lock_where_possible
from mora_environment.weights.weights_source import Conversion, HubPlace, WeightsSource

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LOCK_DEADLINE_S = 3600.0  # another fetch may be converting the same file


def convert(source: WeightsSource, commit: str, files: Sequence[str], tell: Callable[[str], None]) -> Path:
    """Convert a source's weights and return their folder; those that are converted already are left alone.

    Args:
        files: names in the source's folder, a pickle or its index and shards; all are in the cache.
        tell: takes a line of progress.

    Raises:
        CheckpointError: a file is damaged, is no pickle of tensors only, or has not the expected tensors.
    """
    place, conversion = source.place(), source.conversion
    assert place is not None
    assert conversion is not None
    final = converted_folder(place, commit, conversion.dtype)
    final.parent.mkdir(parents=True, exist_ok=True)
    with open(final.parent / f".{final.name}.lock", "w", encoding="utf-8") as lock:
        lock_where_possible(lock.fileno(), _LOCK_DEADLINE_S, shown=lock.name)
        ready = find_converted(source)
        if ready is not None:
            return ready
        for abandoned in final.parent.glob(f".{final.name}.*.partial"):
            shutil.rmtree(abandoned)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
        try:
            _write_folder(partial, place, conversion, commit, files, tell)
            shutil.rmtree(final, ignore_errors=True)  # a folder that is not whole
            partial.rename(final)
            sync(final.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def _write_folder(
    folder: Path,
    place: HubPlace,
    conversion: Conversion,
    commit: str,
    files: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    inner = snapshot_folder(place.repository, commit) / place.folder
    pickles = [name for name in files if not name.endswith(".json")]
    tell(f"converting {', '.join(pickles)} of {place} to safetensors in {conversion.dtype} ...")
    sources = [_checked_source(inner / name, place.path_of(name), place.repository) for name in pickles]
    tensors: dict[str, torch.Tensor] = {}
    for name in pickles:
        tensors |= _wanted(_tensors_of(inner / name, place), conversion)
    _drop_tied(tensors, conversion)
    if not tensors:
        raise CheckpointError(
            f"{place} ({', '.join(pickles)}): expected tensors named {' or '.join(conversion.prefixes)}..., found none"
        )
    nbytes = write_stream(folder / WEIGHTS_FILE, tensors, _DTYPES[conversion.dtype])
    sync(folder / WEIGHTS_FILE)
    shutil.copyfile(inner / "config.json", folder / "config.json")
    record = ConversionRecord(
        repository=place.repository, commit=commit, sources=tuple(sources), dtype=conversion.dtype,
        num_tensors=len(tensors), nbytes=nbytes,
    )  # fmt: skip
    folder.chmod(0o755)
    replace_text(folder / RECORD_FILE, record.model_dump_json(indent=1))


def _checked_source(path: Path, name: str, repository: str) -> SourceFile:
    """The file's size and hash. The Hub names large files by their SHA-256, and the cache keeps this name."""
    expected, sha256 = path.resolve().name, sha256_of(path)
    if len(expected) == len(sha256) and expected != sha256:
        raise CheckpointError(
            f"{repository}/{name}: is damaged: its SHA-256 is {sha256}, expected {expected}; delete {path.resolve()} "
            "and fetch again"
        )
    return SourceFile(path=name, nbytes=path.stat().st_size, sha256=sha256)


def _tensors_of(path: Path, place: HubPlace) -> Mapping[str, torch.Tensor]:
    is_mappable = zipfile.is_zipfile(path)  # torch's format of before version 1.6 has to be read whole
    nbytes, available = path.stat().st_size, int(psutil.virtual_memory().available)
    if not is_mappable and nbytes > available:
        raise CheckpointError(
            f"{place}/{path.name}: is in torch's old format, which is read whole: expected {nbytes / 1e9:.1f} GB of "
            f"free memory, got {available / 1e9:.1f} GB; convert it on a larger machine and give the folder"
        )
    try:
        content: Any = torch.load(path, map_location="cpu", mmap=is_mappable, weights_only=True)
    except Exception as error:  # broken and foreign files make torch raise many types
        raise CheckpointError(
            f"{place}/{path.name}: cannot be loaded as tensors only ({type(error).__name__}), so it is broken or "
            "contains a program, which was not run; use a repository or folder with safetensors"
        ) from None
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{place}/{path.name}: expected tensors by name, got {type(content).__name__}")
    return content


def _wanted(content: Mapping[str, torch.Tensor], conversion: Conversion) -> dict[str, torch.Tensor]:
    found = {name: tensor for name, tensor in content.items() if name.startswith(conversion.prefixes)}
    for name, tensor in found.items():
        if not tensor.is_floating_point() or tensor.layout is not torch.strided:
            raise CheckpointError(f"tensor `{name}`: expected dense floating point, got {tensor.dtype} {tensor.layout}")
    return found


def _drop_tied(tensors: dict[str, torch.Tensor], conversion: Conversion) -> None:
    """Leave out tensors that a model shares with another one, where the file has the same values twice."""
    for name, stored in conversion.tied.items():
        if name in tensors and stored in tensors and torch.equal(tensors[name], tensors[stored]):
            del tensors[name]
