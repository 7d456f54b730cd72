"""The target clips of an agent's loss: what `store_target` and `has_targets` of every video agent do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from mora_runtime.errors import BadArgument
from torch import Tensor

from mora_training.target_store import Target, TargetStore


class ClipTargets:
    """Encodes each clip once.

    Args:
        store: of encoded clips; processes can share its folder.
        clip_shape: (F, H, W, 3).
        encode: from uint8 frames of that shape on the CPU to named tensors on the CPU.
    """

    def __init__(self, store: TargetStore, clip_shape: tuple[int, ...], encode: Callable[[Tensor], Target]) -> None:
        self._store = store
        self._clip_shape = clip_shape
        self._encode = encode

    def add(self, pixels: Tensor) -> str:
        """The content key of a clip, which is encoded if it is neither in memory nor on disk.

        Raises:
            BadArgument: the pixels have another dtype or shape.
        """
        if pixels.dtype != torch.uint8 or tuple(pixels.shape) != self._clip_shape:
            raise BadArgument(f"pixels: expected uint8 {self._clip_shape}, got {pixels.dtype} {tuple(pixels.shape)}")
        frames = pixels.contiguous().cpu()
        key = hashlib.sha256(frames.numpy().data).hexdigest()
        if self._store.find(key) is None:
            self._store.store(key, self._encode(frames))
        return key

    def has(self, keys: list[str]) -> list[bool]:
        """Of each key, whether its clip is stored, possibly by another process."""
        return [self._store.find(key) is not None for key in keys]

    def get(self, key: str) -> Target:
        """The target with this key. Raises: BadArgument: it is unknown."""
        found = self._store.find(key)
        if found is None:
            raise BadArgument(f"unknown target key `{key[:40]}`; expected one that `store_target` returned")
        return found
