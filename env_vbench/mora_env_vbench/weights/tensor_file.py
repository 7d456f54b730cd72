"""Tensors of a file by name, each read when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping

from torch import Tensor


class TensorFile(Mapping[str, Tensor]):
    """Tensors by name, with shapes that can be told without reading the tensors."""

    @abstractmethod
    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; KeyError without one of this name."""


class TensorsInMemory(TensorFile):
    """Tensors that are already here."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def shape_of(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)


class Renamed(TensorFile):
    """Some tensors of a file under other names.

    Args:
        names: by new name, the name in the file.
    """

    def __init__(self, file: TensorFile, names: Mapping[str, str]) -> None:
        self._file = file
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> Tensor:
        return self._file[self._names[name]]

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self._file.shape_of(self._names[name])
