"""A torch tensor over memory that torch did not allocate: no copy, and of torch only `from_dlpack` is used.

`device_pool` calls it for slots of device pools. DLPack is a C structure that every torch (and numpy, cupy, jax) reads
the same way, so the process that allocated the memory and the one that views it may run different versions.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from mora_runtime.wire.tensor_meta import TensorMeta

_DEVICE_TYPES = {"cpu": 1, "cuda": 2}  # kDLCPU, kDLCUDA
_UNSIGNED, _BITS, _LANES = 1, 8, 1  # every tensor is imported as bytes and viewed as its dtype afterwards
_NAME = b"dltensor"  # the capsule stores this pointer, so the object must stay alive


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # NULL: dense, C order
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_alive: dict[int, tuple[Any, ...]] = {}  # address of the structure -> what must live until torch deletes it


def _drop(address: int, alive: dict[int, tuple[Any, ...]] = _alive) -> None:
    alive.pop(address, None)


_deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_drop)
# A tensor can outlive this module when the interpreter shuts down, and torch still calls the address.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_deleter))

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


def tensor_over(address: int, meta: TensorMeta, device: torch.device, lease: object) -> torch.Tensor:
    """Make a tensor of `meta` over the bytes at `address`, on `device` (with its index on CUDA).

    `lease` lives as long as any view, storage or autograd graph of the tensor, and is released in the thread that drops
    the last of them. An empty tensor has no bytes and keeps no lease.
    """
    if meta.nbytes == 0:
        return torch.empty(meta.shape, dtype=meta.dtype, device=device)
    shape = (ctypes.c_int64 * 1)(meta.nbytes)
    described = _DLTensor(
        address, _DEVICE_TYPES[device.type], device.index or 0, 1, _UNSIGNED, _BITS, _LANES, shape, None, 0
    )
    managed = _DLManagedTensor(described, None, ctypes.cast(_deleter, ctypes.c_void_p))
    key = ctypes.addressof(managed)
    _alive[key] = (managed, shape, lease)
    try:
        flat = from_dlpack(_new_capsule(key, _NAME, None))
    except BaseException:
        _alive.pop(key, None)
        raise
    return flat.view(meta.dtype).view(meta.shape)
