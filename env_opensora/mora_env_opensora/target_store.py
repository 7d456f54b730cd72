"""Posteriors of target clips by content key: in memory up to a limit, and on disk so that no clip is encoded twice."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from mora_training.tensor_files import TensorFiles

from mora_env_opensora.conditioning import ClipSize
from mora_env_opensora.objective import Target
from mora_env_opensora.weights_identity import identity_of

_MAX_MEMORY_NBYTES = 2 << 30  # about 580 clips of 93x480x640; further ones are read from disk when they are used


class TargetStore:
    """Targets of one clip size.

    Args:
        folder: of the files; None = everything stays in memory.
        identity: of the autoencoder: weights, dtype and whatever else changes its posteriors.
        max_memory_nbytes: of targets that are on disk too; the least recently used ones are dropped from memory.
    """

    def __init__(
        self, size: ClipSize, folder: Path | None, identity: str, *, max_memory_nbytes: int = _MAX_MEMORY_NBYTES
    ) -> None:
        shape = size.latent_shape
        self._files = None if folder is None else TensorFiles(folder, {"mean": shape, "std": shape})
        self._identity = identity_of(identity, size)
        self._max_memory_nbytes = max_memory_nbytes
        self._on_disk: OrderedDict[str, Target] = OrderedDict()  # the copies in memory, in the order of their last use
        self._only_here: dict[str, Target] = {}

    def find(self, key: str) -> Target | None:
        """The target of a clip, by the key of its pixels; None if it has not been encoded."""
        if key in self._only_here:
            return self._only_here[key]
        if key in self._on_disk:
            self._on_disk.move_to_end(key)
            return self._on_disk[key]
        found = None if self._files is None else self._files.read(self._name(key))
        return None if found is None else self._remembered(key, Target(found["mean"], found["std"]))

    def store(self, key: str, target: Target) -> None:
        """Store a target, whose tensors are on the CPU."""
        written = self._files is not None and self._files.write(self._name(key), target._asdict())
        if written:
            self._remembered(key, target)
        else:
            self._only_here[key] = target

    def _name(self, key: str) -> str:
        return identity_of(self._identity, key)

    def _remembered(self, key: str, target: Target) -> Target:
        self._on_disk[key] = target
        while len(self._on_disk) > 1 and sum(map(_nbytes, self._on_disk.values())) > self._max_memory_nbytes:
            self._on_disk.popitem(last=False)
        return target


def _nbytes(target: Target) -> int:
    return target.mean.nbytes + target.std.nbytes
