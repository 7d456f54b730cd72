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
    with open(path, "wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            _write_tensor(handle, tensor, dtype)
    return 8 + len(text) + end


def _write_tensor(handle: BinaryIO, tensor: torch.Tensor, dtype: torch.dtype) -> None:
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    for piece in tensor.reshape(-1).split(_PIECE_NUM_ELEMENTS):  # type: ignore[no-untyped-call]
        handle.write(piece.to(dtype).contiguous().view(torch.uint8).numpy().data)
