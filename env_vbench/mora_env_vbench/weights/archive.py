"""Archives of torch (`.pth`, `.pt`, TorchScript): tensors are read one by one, and no code of the archive runs."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from mora_env_vbench.weights.errors import WeightsRefused
from mora_env_vbench.weights.pickle_reader import stored_tensors
from mora_env_vbench.weights.tensor_file import TensorFile

_MAX_PICKLE_NBYTES = 32 << 20
_MAX_ENTRIES = 100_000


class Archive(TensorFile):
    """The tensors of an archive by their path; each is read when it is asked for.

    Raises:
        WeightsRefused: the file is no such archive, is damaged, or holds more than tensors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise WeightsRefused(f"{path}: expected an archive of torch: {error}") from error
        self._entries = {entry.filename: entry for entry in self._zip.infolist()}
        if len(self._entries) > _MAX_ENTRIES:
            raise WeightsRefused(f"{path}: expected at most {_MAX_ENTRIES} entries, got {len(self._entries)}")
        self._root = self._find_root()
        self._check_byte_order()
        pickled = self._read(f"{self._root}data.pkl", _MAX_PICKLE_NBYTES)
        self._tensors = stored_tensors(pickled, str(path))

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        told = self._tensors[name]
        storage, itemsize = told.storage, told.storage.dtype.itemsize
        last = told.offset + sum((size - 1) * step for size, step in zip(told.shape, told.stride, strict=True))
        if math.prod(told.shape) == 0:
            return torch.empty(told.shape, dtype=storage.dtype)
        content = self._read(f"{self._root}data/{storage.key}", storage.num_elements * itemsize)
        if len(content) < (last + 1) * itemsize:
            raise WeightsRefused(f"{self._path}: `{name}` needs {last + 1} elements, its storage has fewer")
        flat = torch.frombuffer(bytearray(content), dtype=storage.dtype)
        return flat.as_strided(told.shape, told.stride, told.offset)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def _find_root(self) -> str:
        roots = {name.removesuffix("data.pkl") for name in self._entries if name.count("/") == 1}
        found = sorted(root for root in roots if f"{root}data.pkl" in self._entries and root.endswith("/"))
        if len(found) != 1:
            raise WeightsRefused(f"{self._path}: expected an archive of torch, with one file data.pkl in its folder")
        return found[0]

    def _check_byte_order(self) -> None:
        name = f"{self._root}byteorder"
        if name in self._entries and self._read(name, 16).strip() != b"little":
            raise WeightsRefused(f"{self._path}: expected little-endian numbers")

    def _read(self, name: str, most_nbytes: int) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise WeightsRefused(f"{self._path}: expected an entry {name}, got none")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most_nbytes:
            raise WeightsRefused(
                f"{self._path}: {name}: expected an entry of at most {most_nbytes} bytes, not compressed; "
                f"got {entry.file_size} bytes"
            )
        try:
            return self._zip.read(entry)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            raise WeightsRefused(f"{self._path}: {name} cannot be read: {error}") from error
