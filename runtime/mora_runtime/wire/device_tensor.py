"""Descriptions of device memory for a peer: a pool once, and each tensor in it. Plain values; CUDA is not needed.

`device_pool.DevicePool` makes them and `device_pool.OpenedPool`, in another process, reads them. The decoders are
total: any bytes give a value or one named error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mora_runtime.errors import FrameError
from mora_runtime.limits import MAX_NUM_DIMENSIONS, MAX_SEGMENT_NBYTES, NUM_DEVICE_EVENTS
from mora_runtime.wire.tensor_meta import check_bounds, checked_meta

HANDLE_NBYTES = 64  # of CUDA's inter-process handles
_OFFER = struct.Struct("!BQ16sQ64sB")  # version, pool, device UUID, nbytes, memory handle, number of events
_TENSOR = struct.Struct("!QQQBBB")  # pool, offset, nbytes, dtype code, event, number of dimensions
_VERSION = 1


@dataclass(frozen=True, slots=True)
class DeviceOffer:
    """Description of a pool. Owner -> every peer that will read its tensors, once; bytes, no descriptor."""

    pool: int  # 64 random bits
    device_uuid: bytes  # 16; ordinals differ between processes
    nbytes: int
    memory_handle: bytes  # 64; the CUDA runtime's
    event_handles: tuple[bytes, ...]  # 64 each, by event index

    def pack(self) -> bytes:
        """Encode the offer in at most 4.2 KB."""
        head = _OFFER.pack(
            _VERSION, self.pool, self.device_uuid, self.nbytes, self.memory_handle, len(self.event_handles)
        )
        return head + b"".join(self.event_handles)

    @classmethod
    def unpack(cls, data: bytes) -> DeviceOffer:
        """Decode an offer; FrameError if these bytes are not one."""
        if len(data) < _OFFER.size:
            raise FrameError(f"a device offer has {len(data)} bytes, expected at least {_OFFER.size}")
        version, pool, uuid, nbytes, handle, num_events = _OFFER.unpack_from(data)
        if version != _VERSION:
            raise FrameError(f"a device offer is of version {version}, expected {_VERSION}; the peers' runtimes differ")
        if not 0 < nbytes <= MAX_SEGMENT_NBYTES or not 0 < num_events <= NUM_DEVICE_EVENTS:
            raise FrameError(f"a device offer claims {nbytes} bytes and {num_events} events")
        events = data[_OFFER.size :]
        if len(events) != num_events * HANDLE_NBYTES:
            raise FrameError(f"a device offer of {num_events} events carries {len(events)} bytes of handles")
        handles = (events[start : start + HANDLE_NBYTES] for start in range(0, len(events), HANDLE_NBYTES))
        return cls(pool, uuid, nbytes, handle, tuple(handles))


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """A tensor in a device pool: dense, C order, 64-byte aligned. The owner frees it after the last RELEASE."""

    pool: int
    offset: int
    nbytes: int
    dtype: int  # code of `tensor_meta.DTYPES`
    shape: tuple[int, ...]
    event: int  # index into the offer's events; the bytes are written once it has happened

    def pack(self) -> bytes:
        """Encode the tensor in 27 bytes and 8 per dimension."""
        head = _TENSOR.pack(self.pool, self.offset, self.nbytes, self.dtype, self.event, len(self.shape))
        return head + struct.pack(f"!{len(self.shape)}Q", *self.shape)

    @classmethod
    def unpack(cls, data: bytes) -> DeviceTensor:
        """Decode a tensor; FrameError if these bytes are not one, BoundsError if dtype, shape and size disagree."""
        if len(data) < _TENSOR.size:
            raise FrameError(f"a device tensor has {len(data)} bytes, expected at least {_TENSOR.size}")
        pool, offset, nbytes, dtype, event, rank = _TENSOR.unpack_from(data)
        if rank > MAX_NUM_DIMENSIONS or len(data) != _TENSOR.size + 8 * rank:
            raise FrameError(f"a device tensor of {rank} dimensions has {len(data)} bytes")
        shape = struct.unpack_from(f"!{rank}Q", data, _TENSOR.size)
        check_bounds(checked_meta(dtype, shape), offset=offset, nbytes=nbytes, segment_nbytes=MAX_SEGMENT_NBYTES)
        return cls(pool, offset, nbytes, dtype, shape, event)
