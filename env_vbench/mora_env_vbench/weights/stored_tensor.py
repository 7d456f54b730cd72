"""A tensor in an archive of torch, described without being read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Storage:
    """Numbers of one type, in an entry `data/KEY` of the archive."""

    key: str
    dtype: torch.dtype
    num_elements: int

    @classmethod
    def of(cls, words: Any) -> Storage:
        """The storage that a pickle refers to by ("storage", name of a type, key, device, number of elements).

        Raises:
            ValueError: the words are others.
        """
        if not isinstance(words, tuple) or len(words) < 5 or words[0] != "storage":
            raise ValueError("expected a reference to a storage")
        _, kind, key, _, num_elements = words[:5]
        dtype = _STORAGES.get(str(kind))
        if dtype is None or not isinstance(key, str) or not key.isalnum() or not _is_count(num_elements):
            raise ValueError("expected a storage with a known type, a name and a length")
        return cls(key, dtype, num_elements)


@dataclass(frozen=True)
class StoredTensor:
    """Part of a storage; `offset` and `stride` count its elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, words: tuple[Any, ...]) -> StoredTensor:
        """The tensor that a pickle makes of (storage, offset, shape, stride, ...).

        Raises:
            ValueError: the words are others.
        """
        if len(words) < 4 or not isinstance(words[0], Storage):
            raise ValueError("expected a tensor of a storage")
        storage, offset, shape, stride = words[:4]
        is_sized = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride)
        if not is_sized or not all(map(_is_count, (offset, *shape, *stride))):
            raise ValueError("expected a tensor with sizes of at least 0 and one stride for each")
        return cls(storage, offset, shape, stride)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
