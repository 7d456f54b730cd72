"""Writes a safetensors file tensor by tensor, cast in pieces, so that memory does not grow with the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch

_CODES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_PIECE_NUM_ELEMENTS = 16 << 20


def write_stream(path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> int:
    """Write tensors, cast to `dtype`, and return the file's size in bytes.

    Args:
        tensors: on the CPU; they may be mapped from a file, of which then only one piece is in memory.
    """
    itemsize = torch.empty((), dtype=dtype).element_size()
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    largest = max((tensor.numel() for tensor in tensors.values()), default=0)
    buffer = torch.empty(min(largest, _PIECE_NUM_ELEMENTS), dtype=dtype)
    with open(path, "wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            _write_tensor(handle, tensor, buffer)
    return 8 + len(text) + end


def _write_tensor(handle: BinaryIO, tensor: torch.Tensor, buffer: torch.Tensor) -> None:
    """Write a tensor in pieces, cast in the buffer."""
    flat = tensor.reshape(-1)  # copies only a tensor that is not contiguous
    for start in range(0, flat.numel(), _PIECE_NUM_ELEMENTS):
        piece = flat[start : start + _PIECE_NUM_ELEMENTS]
        handle.write(buffer[: piece.numel()].copy_(piece).view(torch.uint8).numpy().data)
