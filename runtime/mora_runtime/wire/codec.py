"""Bytes to messages and back. The decoder is total: any bytes give one message or one `FrameError`.

A frame is the magic, one version byte, and msgpack with every length limited. References to tensors are extension type
1 with fixed fields, small tensors extension type 2 with a fixed header and their bytes, references to tensors in device
memory extension type 3. A frame that was not packed canonically (duplicate keys, overlong integers, trailing bytes) is
refused, so every message has exactly one encoding.
"""

from __future__ import annotations

import struct
import threading
from typing import Any

import msgpack

from mora_runtime.errors import BoundsError, FrameError
from mora_runtime.limits import (
    INLINE_TENSOR_NBYTES,
    MAX_FRAME_NBYTES,
    MAX_LIST_LENGTH,
    MAX_NUM_ARGUMENTS,
    MAX_NUM_DIMENSIONS,
    MAX_NUM_TENSORS,
    MAX_STRING_LENGTH,
)
from mora_runtime.wire.messages import (
    PROTOCOL_VERSION,
    InlineTensor,
    Message,
    WireDeviceTensor,
    WireTensor,
    check_fields,
    message_from_wire,
    message_to_wire,
)
from mora_runtime.wire.tensor_meta import DTYPES, checked_meta, meta_for

MAGIC = b"MORA"
_HEADER = MAGIC + bytes([PROTOCOL_VERSION])
_TENSOR = 1
_INLINE = 2
_DEVICE = 3
_MAX_TENSOR_NBYTES = 512
# dtype, number of dimensions, each size; then the bytes
_INLINE_HEADERS = tuple(struct.Struct(f"!BB{num_dimensions}Q") for num_dimensions in range(MAX_NUM_DIMENSIONS + 1))
_MAX_INLINE_NBYTES = _INLINE_HEADERS[-1].size + INLINE_TENSOR_NBYTES
_MAX_DEPTH = 8
_SHORT_TEXT_LENGTH = MAX_STRING_LENGTH // 4  # characters; each takes at most four bytes in UTF-8
_PLAIN = frozenset((int, bool, float, type(None)))
_TENSORS = frozenset((WireTensor, WireDeviceTensor, InlineTensor))
_NUM_FIXED = {_TENSOR: 6, _DEVICE: 7}  # fields of a reference that come before the sizes


class _Packers(threading.local):
    """Packers of one thread; making one takes longer than packing a message."""

    def __init__(self) -> None:
        self.message = msgpack.Packer(default=_pack_tensor)
        self.again = msgpack.Packer(default=_pack_fields)  # of values that were checked when they were unpacked
        self.tensor = msgpack.Packer()


def encode(message: Message) -> bytes:
    """Pack a message into a frame that `decode` accepts.

    Raises:
        FrameError: the message does not fit in 64 KiB, or contains a value that cannot be sent.
    """
    content = message_to_wire(message)
    try:
        _check_content(content)
        check_fields(type(message), message)
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
    """Unpack a message; FrameError for any bytes that `encode` would not produce."""
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
            max_ext_len=_MAX_INLINE_NBYTES,
        )
    except FrameError:
        raise
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"frame is not msgpack within the limits: {type(error).__name__}") from None
    _check_content(content)
    return content


def _check_content(content: object) -> None:
    """Refuse what msgpack allows and this protocol does not: nested maps, bytes, deep nesting, too many tensors."""
    if type(content) is not list:
        raise FrameError("expected a list that starts with the kind of message")
    num_tensors = 0
    for field in content:
        kind = type(field)
        if kind is dict:
            num_tensors += _check_named(field)
        elif kind not in _PLAIN and (kind is not str or len(field) > _SHORT_TEXT_LENGTH):
            num_tensors += _check_value(field, depth=1)
    if num_tensors > MAX_NUM_TENSORS:
        raise FrameError(f"{num_tensors} tensors in one message, expected at most {MAX_NUM_TENSORS}")


def _check_named(values: dict[object, object]) -> int:
    """Check named values and return the number of tensors among them."""
    if len(values) > MAX_NUM_ARGUMENTS:
        raise FrameError(f"{len(values)} named values, expected at most {MAX_NUM_ARGUMENTS}")
    num_tensors = 0
    for name, value in values.items():
        if type(name) is not str or len(name) > _SHORT_TEXT_LENGTH:
            _check_value(name, depth=1)
        if type(value) not in _PLAIN:
            num_tensors += _check_value(value, depth=1)
    return num_tensors


def _check_value(value: object, *, depth: int) -> int:
    """Check one value and return the number of tensors in it."""
    kind = type(value)
    if kind in _TENSORS:
        return 1
    if kind in _PLAIN:
        return 0
    if isinstance(value, str):
        if len(value) > _SHORT_TEXT_LENGTH and len(value.encode()) > MAX_STRING_LENGTH:
            raise FrameError(f"text of {len(value)} characters, expected at most {MAX_STRING_LENGTH} bytes")
        return 0
    if not isinstance(value, list):
        raise FrameError(f"a value of type {kind.__name__} is not allowed in a message")
    if depth > _MAX_DEPTH:
        raise FrameError(f"values nested deeper than {_MAX_DEPTH}")
    if len(value) > MAX_LIST_LENGTH:
        raise FrameError(f"list of {len(value)} values, expected at most {MAX_LIST_LENGTH}")
    return sum(_check_value(item, depth=depth + 1) for item in value if type(item) not in _PLAIN)


def _pack_tensor(value: Any) -> msgpack.ExtType:
    if isinstance(value, InlineTensor):
        if not 0 <= value.dtype < len(DTYPES):
            raise FrameError(f"small tensor: dtype code {value.dtype}, expected 0 to {len(DTYPES) - 1}")
        _check_inline_size(len(value.data), meta_for(DTYPES[value.dtype], value.shape).nbytes)
        return _pack_inline(value)
    if not isinstance(value, WireTensor | WireDeviceTensor):
        raise TypeError(f"a {type(value).__name__} is not allowed in a message")
    packed = _pack_fields(value)
    _reference(packed.code, _fields_of(value))
    if len(packed.data) > _MAX_TENSOR_NBYTES:
        raise ValueError(f"a tensor reference takes {len(packed.data)} bytes, expected at most {_MAX_TENSOR_NBYTES}")
    return packed


def _pack_fields(value: WireTensor | WireDeviceTensor | InlineTensor) -> msgpack.ExtType:
    if isinstance(value, InlineTensor):
        return _pack_inline(value)
    code = _TENSOR if isinstance(value, WireTensor) else _DEVICE
    return msgpack.ExtType(code, _packers.tensor.pack(_fields_of(value)))


def _pack_inline(value: InlineTensor) -> msgpack.ExtType:
    try:
        header = _INLINE_HEADERS[len(value.shape)].pack(value.dtype, len(value.shape), *value.shape)
    except (struct.error, IndexError) as error:
        raise FrameError(f"small tensor of shape {list(value.shape)}: {error}") from None
    return msgpack.ExtType(_INLINE, header + value.data)


def _fields_of(value: WireTensor | WireDeviceTensor) -> list[Any]:
    if isinstance(value, WireTensor):
        return [value.lease, value.owner, value.segment, value.offset, value.nbytes, value.dtype, *value.shape]
    place = [value.pool, value.event, value.offset, value.nbytes]
    return [value.lease, value.owner, *place, value.dtype, *value.shape]


def _unpack_tensor(code: int, data: bytes) -> WireTensor | WireDeviceTensor | InlineTensor:
    if code == _INLINE:
        return _unpack_inline(data)
    if code not in _NUM_FIXED:
        raise FrameError(f"unknown extension type {code}")
    if len(data) > _MAX_TENSOR_NBYTES:
        raise FrameError(f"a tensor reference of {len(data)} bytes, expected at most {_MAX_TENSOR_NBYTES}")
    try:
        fields = msgpack.unpackb(
            bytes(data), raw=False, max_str_len=_MAX_TENSOR_NBYTES, max_array_len=_NUM_FIXED[code] + MAX_NUM_DIMENSIONS,
            max_bin_len=0, max_map_len=0, max_ext_len=0,
        )  # fmt: skip
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"tensor reference is malformed: {type(error).__name__}") from None
    return _reference(code, fields)


def _unpack_inline(data: bytes) -> InlineTensor:
    """Unpack dtype, shape and bytes of a small tensor, and check that they agree."""
    if len(data) < 2 or data[1] > MAX_NUM_DIMENSIONS or len(data) < _INLINE_HEADERS[data[1]].size:
        raise FrameError(f"small tensor: expected a dtype, at most {MAX_NUM_DIMENSIONS} dimensions, and their sizes")
    header = _INLINE_HEADERS[data[1]]
    dtype, _, *shape = header.unpack_from(data)
    try:
        nbytes = checked_meta(dtype, shape).nbytes
    except BoundsError as error:
        raise FrameError(f"small tensor: {error}") from None
    _check_inline_size(len(data) - header.size, nbytes)
    return InlineTensor(dtype, tuple(shape), data[header.size :])


def _check_inline_size(nbytes: int, expected_nbytes: int) -> None:
    if nbytes != expected_nbytes or nbytes > INLINE_TENSOR_NBYTES:
        raise FrameError(
            f"small tensor: {nbytes} bytes, but its dtype and shape need {expected_nbytes}; expected at most "
            f"{INLINE_TENSOR_NBYTES}"
        )


def _reference(code: int, fields: object) -> WireTensor | WireDeviceTensor:
    num_fixed = _NUM_FIXED[code]
    if (
        not isinstance(fields, list)
        or not num_fixed <= len(fields) <= num_fixed + MAX_NUM_DIMENSIONS
        or type(fields[1]) is not str
    ):
        where = "segment" if code == _TENSOR else "pool, event"
        raise FrameError(f"tensor reference: expected lease, owner, {where}, offset, nbytes, dtype, at most 8 sizes")
    numbers = [fields[0], *fields[2:]]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise FrameError("tensor reference: expected numbers >= 0")
    lease, owner, first, second, third, fourth, *rest = fields
    if code == _TENSOR:
        return WireTensor(lease, owner, first, second, third, fourth, tuple(rest))
    return WireDeviceTensor(lease, owner, first, second, third, fourth, rest[0], tuple(rest[1:]))


_packers = _Packers()
