"""Bytes to messages and back. The decoder is total: any bytes give one message or one `FrameError`.

A frame is the magic, one version byte, and msgpack with every length limited. Tensors are extension type 1 with fixed
fields. A frame that was not packed canonically (duplicate keys, overlong integers, trailing bytes) is refused, so there
is exactly one byte string for each message.
"""

from __future__ import annotations

import threading
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
from mora_runtime.messages import (
    PROTOCOL_VERSION,
    Message,
    WireTensor,
    check_fields,
    message_from_wire,
    message_to_wire,
)

MAGIC = b"MORA"
_HEADER = MAGIC + bytes([PROTOCOL_VERSION])
_TENSOR = 1
_MAX_TENSOR_NBYTES = 512
_MAX_DEPTH = 8
_PLAIN = frozenset((int, bool, float, type(None)))


class _Packers(threading.local):
    """Packers of one thread; making one takes longer than packing a message."""

    def __init__(self) -> None:
        self.message = msgpack.Packer(default=_pack_tensor)
        self.again = msgpack.Packer(default=_pack_fields)  # of values that were checked when they were unpacked
        self.tensor = msgpack.Packer()


def encode(message: Message) -> bytes:
    """Pack a message; whatever comes back is what `decode` accepts.

    Raises:
        FrameError: it does not fit in 64 KiB, or holds something that may not cross.
    """
    content = message_to_wire(message)
    try:
        _check_content(content)
        check_fields(type(message), content[1:])
        packed: bytes = _HEADER + _packers.message.pack(content)
    except (FrameError, TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"{type(message).__name__} cannot be sent: {error}") from None
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
    packed = frame[len(_HEADER) :]
    content = _unpack(packed)
    message = message_from_wire(content)
    if not _is_canonical(content, packed):
        raise FrameError(f"{type(message).__name__} is not packed canonically (duplicate keys or overlong numbers)")
    return message


def _is_canonical(content: object, packed: bytes) -> bool:
    try:
        again: bytes = _packers.again.pack(content)
    except (TypeError, ValueError, OverflowError):
        return False
    return again == packed


def _unpack(packed: bytes) -> object:
    try:
        content = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            use_list=True,
            ext_hook=_unpack_tensor,
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
    _check_content(content)
    return content


def _check_content(content: object) -> None:
    """Refuse what msgpack can carry and this wire does not: maps inside values, bytes, deep nesting, many tensors."""
    if not isinstance(content, list):
        raise FrameError("expected a list that starts with the kind of message")
    num_tensors = 0
    for field in content:
        if isinstance(field, dict):
            if len(field) > MAX_NUM_ARGUMENTS:
                raise FrameError(f"{len(field)} named values, expected at most {MAX_NUM_ARGUMENTS}")
            num_tensors += sum(_check_value(value, depth=1) for pair in field.items() for value in pair)
        elif type(field) not in _PLAIN:
            num_tensors += _check_value(field, depth=1)
    if num_tensors > MAX_NUM_TENSORS:
        raise FrameError(f"{num_tensors} tensors in one message, expected at most {MAX_NUM_TENSORS}")


def _check_value(value: object, *, depth: int) -> int:
    """Number of tensors in a value that may cross."""
    if value is None or isinstance(value, bool | int | float):
        return 0
    if isinstance(value, str):
        if len(value) > MAX_STRING_LENGTH // 4 and len(value.encode()) > MAX_STRING_LENGTH:
            raise FrameError(f"text of {len(value)} characters, expected at most {MAX_STRING_LENGTH} bytes")
        return 0
    if isinstance(value, WireTensor):
        return 1
    if not isinstance(value, list):
        raise FrameError(f"a value of type {type(value).__name__} may not cross")
    if depth > _MAX_DEPTH:
        raise FrameError(f"values nested deeper than {_MAX_DEPTH}")
    if len(value) > MAX_LIST_LENGTH:
        raise FrameError(f"list of {len(value)} values, expected at most {MAX_LIST_LENGTH}")
    return sum(_check_value(item, depth=depth + 1) for item in value if type(item) not in _PLAIN)


def _pack_tensor(value: Any) -> msgpack.ExtType:
    if not isinstance(value, WireTensor):
        raise TypeError(f"a {type(value).__name__} may not cross")
    _tensor_from_fields(_fields_of(value))
    packed = _pack_fields(value)
    if len(packed.data) > _MAX_TENSOR_NBYTES:
        raise ValueError(f"a tensor reference takes {len(packed.data)} bytes, expected at most {_MAX_TENSOR_NBYTES}")
    return packed


def _pack_fields(value: WireTensor) -> msgpack.ExtType:
    return msgpack.ExtType(_TENSOR, _packers.tensor.pack(_fields_of(value)))


def _fields_of(value: WireTensor) -> list[Any]:
    return [value.lease, value.owner, value.segment, value.offset, value.nbytes, value.dtype, *value.shape]


def _unpack_tensor(code: int, data: bytes) -> WireTensor:
    if code != _TENSOR:
        raise FrameError(f"unknown extension type {code}")
    try:
        fields = msgpack.unpackb(
            bytes(data), raw=False, max_str_len=_MAX_TENSOR_NBYTES, max_array_len=6 + MAX_NUM_DIMENSIONS,
            max_bin_len=0, max_map_len=0, max_ext_len=0,
        )  # fmt: skip
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"tensor reference is malformed: {type(error).__name__}") from None
    return _tensor_from_fields(fields)


def _tensor_from_fields(fields: object) -> WireTensor:
    if not isinstance(fields, list) or not 6 <= len(fields) <= 6 + MAX_NUM_DIMENSIONS or type(fields[1]) is not str:
        raise FrameError("tensor reference: expected lease, owner, segment, offset, nbytes, dtype, at most 8 sizes")
    numbers = [fields[0], *fields[2:]]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise FrameError("tensor reference: expected numbers >= 0")
    return WireTensor(fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], tuple(fields[6:]))


_packers = _Packers()
