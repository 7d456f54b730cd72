"""A checkpoint file as tensors by name: safetensors, archives of torch, and torch's older format."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mora_env_vbench.weights.archive import Archive
from mora_env_vbench.weights.errors import WeightsRefused
from mora_env_vbench.weights.tensor_file import TensorFile, TensorsInMemory


@contextmanager
def open_checkpoint(path: Path) -> Iterator[TensorFile]:
    """Open a file of weights. No code in it runs.

    Raises:
        WeightsRefused: the file is absent, damaged or unsafe.
    """
    if not path.is_file():
        raise WeightsRefused(f"{path}: no such file; expected weights there (docs/evaluation.md lists all files)")
    if path.suffix == ".safetensors":
        with _safetensors(path) as tensors:
            yield tensors
    elif zipfile.is_zipfile(path):
        with Archive(path) as archive:
            yield archive
    else:
        yield TensorsInMemory(_older(path))


class _Safetensors(TensorFile):
    def __init__(self, file: safe_open) -> None:
        self._file = file
        self._names: list[str] = list(file.keys())

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def shape_of(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())


@contextmanager
def _safetensors(path: Path) -> Iterator[_Safetensors]:
    try:
        file = safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise WeightsRefused(f"{path}: expected a safetensors file: {error}") from error
    with file:
        yield _Safetensors(file)


def _older(path: Path) -> dict[str, Tensor]:
    """A file that torch wrote before version 1.6: one pickle, which torch reads with its own list of safe names."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises any class for a file that is damaged or names something that is not safe
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsRefused(f"{path}: expected a file of weights that holds only tensors: {reason}") from error
    return dict(_flat(found, ""))


def _flat(value: object, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for name, child in value.items():
            yield from _flat(child, f"{path}.{name}" if path else str(name))
