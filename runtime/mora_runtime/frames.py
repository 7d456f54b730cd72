"""Bytes to messages and back. The decoder is total: any bytes give one message or one `FrameError`.

A frame is the magic, one version byte, and msgpack with every length limited. Tensors are extension type 1 with fixed
fields. A frame that was not packed canonically (duplicate keys, overlong integers, trailing bytes) is refused, so there
is exactly one byte string for each message.
"""

from __future__ import annotations

from typing import Any

import msgpack

from mora_runtime.errors import FrameError
from mora_runtime.limits import (
    MAX_FRAME_NBYTES,
    MAX_LIST_LENGTH,
    MAX_NUM_ARGUMENTS,
    MAX_NUM_DIMENSIONS,
    MAX_NUM_TENSORS,
    MAX_STRING_LENGTH,
)
from mora_runtime.messages import PROTOCOL_VERSION, Message, WireTensor, message_from_wire, message_to_wire

MAGIC = b"MORA"
_HEADER = MAGIC + bytes([PROTOCOL_VERSION])
_TENSOR = 1
_MAX_TENSOR_NBYTES = 512
_MAX_DEPTH = 8


def encode(message: Message) -> bytes:
    """Pack a message.

    Raises:
        FrameError: it does not fit in 64 KiB, or holds something that may not cross.
    """
    try:
        body: bytes = msgpack.packb(message_to_wire(message), default=_pack_tensor, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"{type(message).__name__} cannot be sent: {error}") from None
    packed = _HEADER + body
    if len(packed) > MAX_FRAME_NBYTES:
        raise FrameError(
            f"{type(message).__name__} takes {len(packed)} bytes, expected at most {MAX_FRAME_NBYTES}; "
            "send bulk data as tensors"
        )
    return packed


def decode(frame: bytes) -> Message:
    """Unpack a message; FrameError for anything that `encode` would not have made."""
    if len(frame) > MAX_FRAME_NBYTES:
        raise FrameError(f"frame of {len(frame)} bytes, expected at most {MAX_FRAME_NBYTES}")
    if frame[: len(MAGIC)] != MAGIC:
        raise FrameError("frame does not start with the magic of this protocol")
    if frame[len(MAGIC) : len(_HEADER)] != _HEADER[len(MAGIC) :]:
        version = frame[len(MAGIC) : len(_HEADER)].hex() or "none"
        raise FrameError(f"frame of protocol version 0x{version}, expected {PROTOCOL_VERSION}; update the older side")
    message = message_from_wire(_unpack(frame[len(_HEADER) :]))
    if encode(message) != frame:
        raise FrameError(f"{type(message).__name__} is not packed canonically (duplicate keys or overlong numbers)")
    return message


def _unpack(packed: bytes) -> object:
    num_tensors = 0

    def tensor(code: int, data: bytes) -> WireTensor:
        nonlocal num_tensors
        num_tensors += 1
        if num_tensors > MAX_NUM_TENSORS:
            raise FrameError(f"more than {MAX_NUM_TENSORS} tensors in one message")
        return _unpack_tensor(code, data)

    try:
        content = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            use_list=True,
            ext_hook=tensor,
            max_str_len=MAX_STRING_LENGTH,
            max_bin_len=0,
            max_array_len=MAX_LIST_LENGTH,
            max_map_len=MAX_NUM_ARGUMENTS,
            max_ext_len=_MAX_TENSOR_NBYTES,
        )
    except FrameError:
        raise
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"frame is not msgpack within the limits: {type(error).__name__}") from None
    _check_values(content, depth=0)
    return content


def _check_values(value: object, *, depth: int) -> None:
    """Refuse what msgpack can carry and this wire does not: timestamps, bytes, deep nesting."""
    if depth > _MAX_DEPTH:
        raise FrameError(f"values nested deeper than {_MAX_DEPTH}")
    if isinstance(value, list):
        for item in value:
            _check_values(item, depth=depth + 1)
    elif isinstance(value, dict):
        for item in value.values():
            _check_values(item, depth=depth + 1)
    elif value is not None and not isinstance(value, bool | int | float | str | WireTensor):
        raise FrameError(f"a value of type {type(value).__name__} may not cross")


def _pack_tensor(value: Any) -> msgpack.ExtType:
    if not isinstance(value, WireTensor):
        raise TypeError(f"a {type(value).__name__} may not cross")
    fields = [
        value.lease, value.owner, value.segment, value.offset, value.nbytes, value.dtype, *value.shape
    ]  # fmt: skip
    return msgpack.ExtType(_TENSOR, msgpack.packb(fields))


def _unpack_tensor(code: int, data: bytes) -> WireTensor:
    if code != _TENSOR:
        raise FrameError(f"unknown extension type {code}")
    try:
        fields = msgpack.unpackb(
            bytes(data), raw=False, max_str_len=_MAX_TENSOR_NBYTES, max_array_len=6 + MAX_NUM_DIMENSIONS,
            max_bin_len=0, max_map_len=0, max_ext_len=0,
        )  # fmt: skip
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"tensor reference is malformed: {type(error).__name__}") from None
    if not isinstance(fields, list) or len(fields) < 6 or type(fields[1]) is not str:
        raise FrameError("tensor reference: expected lease, owner, segment, offset, nbytes, dtype, shape")
    numbers = [fields[0], *fields[2:]]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise FrameError("tensor reference: expected numbers >= 0")
    return WireTensor(fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], tuple(fields[6:]))
