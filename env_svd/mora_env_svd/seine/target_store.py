"""Posteriors of target clips by content key: in memory up to a limit, and on disk so that no clip is encoded twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

from mora_training.tensor_files import TensorFiles

from mora_env_svd.seine.conditioning import ClipSize, Posterior

_MAX_MEMORY_NBYTES = 2 << 30  # about 1000 clips of 16x512x512; further ones are read from disk when they are used


class TargetStore:
    """Targets of one clip size.

    Args:
        folder: of the job; None = everything stays in memory.
        identity: of the autoencoder: weights, dtype and device.
        max_memory_nbytes: of targets that are on disk too; the least recently used ones are dropped from memory.
    """

    def __init__(
        self, size: ClipSize, folder: Path | None, identity: str, *, max_memory_nbytes: int = _MAX_MEMORY_NBYTES
    ) -> None:
        channels, frames, h, w = size.latent_shape
        shape = (frames, channels, h, w)
        self._files = None if folder is None else TensorFiles(folder, {"mean": shape, "std": shape})
        self._identity = f"{identity}\0{size}"
        self._max_memory_nbytes = max_memory_nbytes
        self._on_disk: OrderedDict[str, Posterior] = OrderedDict()  # copies in memory, in the order of their last use
        self._only_here: dict[str, Posterior] = {}

    def find(self, key: str) -> Posterior | None:
        """The target of a clip, by the key of its pixels; None if it has not been encoded."""
        if key in self._only_here:
            return self._only_here[key]
        if key in self._on_disk:
            self._on_disk.move_to_end(key)
            return self._on_disk[key]
        found = None if self._files is None else self._files.read(self._name(key))
        return None if found is None else self._remembered(key, Posterior(found["mean"], found["std"]))

    def store(self, key: str, target: Posterior) -> None:
        """Store a target, whose tensors are on the CPU."""
        if self._files is not None and self._files.write(self._name(key), target._asdict()):
            self._remembered(key, target)
        else:
            self._only_here[key] = target

    def _name(self, key: str) -> str:
        return hashlib.sha256(f"{self._identity}\0{key}".encode()).hexdigest()

    def _remembered(self, key: str, target: Posterior) -> Posterior:
        self._on_disk[key] = target
        while len(self._on_disk) > 1 and sum(map(_nbytes, self._on_disk.values())) > self._max_memory_nbytes:
            self._on_disk.popitem(last=False)
        return target


def _nbytes(target: Posterior) -> int:
    return target.mean.nbytes + target.std.nbytes
