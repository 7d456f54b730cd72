"""Encoded target clips by content key: in memory up to a limit, and on disk so that no clip is encoded twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mora_training.tensor_files import TensorFiles

_MAX_MEMORY_NBYTES = 2 << 30  # of some hundred clips; further ones are read from disk when they are used
Target = Mapping[str, Tensor]  # named tensors on the CPU


class TargetStore:
    """Targets of one agent, each with the same named tensors.

    Args:
        shapes: of each tensor of a target, by name; None = any length.
        folder: of the files; None = everything stays in memory.
        identity: changes with everything that a target depends on besides its clip: the clip's size, and the
            autoencoder's weights, dtype and device.
        max_memory_nbytes: of targets that are on disk too; the least recently used ones are dropped from memory.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int | None, ...]],
        folder: Path | None,
        identity: str,
        *,
        max_memory_nbytes: int = _MAX_MEMORY_NBYTES,
    ) -> None:
        self._files = None if folder is None else TensorFiles(folder, shapes)
        self._identity = identity
        self._max_memory_nbytes = max_memory_nbytes
        self._on_disk: OrderedDict[str, Target] = OrderedDict()  # copies in memory, in the order of their last use
        self._only_here: dict[str, Target] = {}

    def find(self, key: str) -> Target | None:
        """The target of a clip, by the key of its pixels; None if it has not been encoded."""
        if key in self._only_here:
            return self._only_here[key]
        if key in self._on_disk:
            self._on_disk.move_to_end(key)
            return self._on_disk[key]
        found = None if self._files is None else self._files.read(self._name(key))
        return None if found is None else self._remembered(key, found)

    def store(self, key: str, target: Target) -> None:
        """Store a target, whose tensors are on the CPU."""
        if self._files is not None and self._files.write(self._name(key), target):
            self._remembered(key, target)
        else:
            self._only_here[key] = target

    def _name(self, key: str) -> str:
        return hashlib.sha256(f"{self._identity}\0{key}".encode()).hexdigest()

    def _remembered(self, key: str, target: Target) -> Target:
        self._on_disk[key] = target
        while len(self._on_disk) > 1 and sum(map(_nbytes, self._on_disk.values())) > self._max_memory_nbytes:
            self._on_disk.popitem(last=False)
        return target


def _nbytes(target: Target) -> int:
    return sum(tensor.nbytes for tensor in target.values())
