"""Description of a tensor on the wire, and the one bounds check that every path uses.

Tensors are dense, C-contiguous and 64-byte aligned, with a dtype from a closed table: no strides, no class names,
nothing to evaluate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from mora_runtime.errors import BoundsError
from mora_runtime.limits import ALIGNMENT_NBYTES, MAX_NUM_DIMENSIONS

DTYPES: tuple[torch.dtype, ...] = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
)
DTYPE_CODES: dict[torch.dtype, int] = {dtype: code for code, dtype in enumerate(DTYPES)}
_MAX_NBYTES = 1 << 62
_NUM_REMEMBERED = 256  # calls repeat the same few shapes


class TensorMeta(NamedTuple):
    """Dtype, shape, and size in bytes, of a dense tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


def meta_for(dtype: torch.dtype, shape: Sequence[int]) -> TensorMeta:
    """Metadata of a tensor with trusted dtype and shape."""
    return _meta(dtype, tuple(shape))


@functools.lru_cache(_NUM_REMEMBERED)
def _meta(dtype: torch.dtype, shape: tuple[int, ...]) -> TensorMeta:
    return TensorMeta(dtype, shape, math.prod(shape) * dtype.itemsize)


def shaped(flat: torch.Tensor, meta: TensorMeta) -> torch.Tensor:
    """View a one-dimensional tensor in the shape of `meta`."""
    return flat if len(meta.shape) == 1 else flat.view(meta.shape)


def meta_of(tensor: torch.Tensor) -> TensorMeta:
    """Metadata of a local tensor; BoundsError if its dtype, layout or rank is not allowed on the wire."""
    if tensor.layout != torch.strided or tensor.dtype not in DTYPE_CODES:
        raise BoundsError(f"cannot send a {tensor.layout} tensor of {tensor.dtype}; expected a dense one of {DTYPES}")
    return checked_meta(DTYPE_CODES[tensor.dtype], tensor.shape)


def checked_meta(dtype_code: int, shape: Sequence[int]) -> TensorMeta:
    """Check wire values and return the metadata.

    Raises:
        BoundsError: unknown dtype code, more than 8 dimensions, a negative one, or a product too large to address.
    """
    return _checked_meta(dtype_code, tuple(shape))


@functools.lru_cache(_NUM_REMEMBERED)
def _checked_meta(dtype_code: int, shape: tuple[int, ...]) -> TensorMeta:
    if not 0 <= dtype_code < len(DTYPES):
        raise BoundsError(f"dtype code {dtype_code}: expected 0 to {len(DTYPES) - 1}")
    if len(shape) > MAX_NUM_DIMENSIONS:
        raise BoundsError(f"tensor has {len(shape)} dimensions, expected at most {MAX_NUM_DIMENSIONS}")
    if shape and min(shape) < 0:
        raise BoundsError(f"tensor has shape {list(shape)[:MAX_NUM_DIMENSIONS]}, expected sizes >= 0")
    checked = meta_for(DTYPES[dtype_code], shape)
    # Python integers do not overflow; an absurd product is refused before any address is computed from it.
    if checked.nbytes > _MAX_NBYTES:
        raise BoundsError(f"tensor of shape {list(shape)} is larger than any segment")
    return checked


def check_bounds(meta: TensorMeta, *, offset: int, nbytes: int, segment_nbytes: int) -> None:
    """Refuse a tensor that is misaligned, exceeds its segment, or has another size than its shape and dtype need.

    Raises:
        BoundsError: names the violated bound.
    """
    if nbytes != meta.nbytes:
        raise BoundsError(f"tensor claims {nbytes} bytes, its shape and dtype need {meta.nbytes}")
    if offset < 0 or offset % ALIGNMENT_NBYTES:
        raise BoundsError(f"slot offset {offset} is not a multiple of {ALIGNMENT_NBYTES}")
    if offset > segment_nbytes or nbytes > segment_nbytes - offset:
        raise BoundsError(f"slot at {offset} with {nbytes} bytes exceeds its segment of {segment_nbytes} bytes")
