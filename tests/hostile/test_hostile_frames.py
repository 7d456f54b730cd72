"""Faulty peer: any bytes give one message or one FrameError: the decoder's side of the hostile list."""

import pickle
import random
import struct

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mora_runtime.errors import FrameError
from mora_runtime.limits import MAX_FRAME_NBYTES
from mora_runtime.wire.codec import MAGIC, decode, encode
from mora_runtime.wire.messages import (
    PROTOCOL_VERSION,
    Backward,
    Call,
    Cancel,
    InlineTensor,
    Ping,
    PoolOpened,
    Release,
    Result,
    WireDeviceTensor,
    WireTensor,
)

HEADER = MAGIC + bytes([PROTOCOL_VERSION])
TENSOR = WireTensor(1, "coordinator.0.1.0123456789abcdef", 0, 4096, 16, 0, (2, 2))
INLINE = InlineTensor(0, (2,), b"12345678")
CALL = Call(7, "echo", "add", {"x": TENSOR, "n": [1, -2, 3.5, None, True, "ü"]}, ["x"], {"o": INLINE}, True, [4, 5])
PING_KIND, RELEASE_KIND, CALL_KIND = 8, 7, 2


def framed(content: object) -> bytes:
    packed: bytes = HEADER + msgpack.packb(content)
    return packed


def nested(depth: int) -> bytes:
    """A call whose only argument is a deeply nested list, packed by hand because msgpack itself refuses it."""
    start = HEADER + b"\x9c" + bytes([CALL_KIND]) + b"\x07" + b"\xa1a" + b"\xa1m" + b"\x81\xa1x"
    return start + b"\x91" * depth + b"\xc0" + b"\xc0\xc0\xc2\x90\xc0\xc0\xc2"


def test_the_hand_packed_frames_of_this_file_are_of_this_protocol() -> None:
    assert decode(framed([PING_KIND, 3])) == Ping(3)
    assert decode(framed([RELEASE_KIND, [3]])) == Release([3])
    assert nested(1) == framed([CALL_KIND, 7, "a", "m", {"x": [None]}, None, None, False, [], None, None, False])
    assert isinstance(decode(nested(1)), Call)


def test_a_frame_cut_off_at_any_byte_is_refused() -> None:
    whole = encode(CALL)
    for length in range(len(whole)):
        with pytest.raises(FrameError):
            decode(whole[:length])


@pytest.mark.parametrize("trailing", [b"\x00", b"\xc0", b"MORA", encode(Ping(1))])
def test_trailing_bytes_are_refused(trailing: bytes) -> None:
    with pytest.raises(FrameError, match="not msgpack within the limits"):
        decode(encode(CALL) + trailing)


@pytest.mark.parametrize("magic", [b"mora", b"MORB", b"\x00\x00\x00\x00", b"AROM"])
def test_a_wrong_magic_is_refused(magic: bytes) -> None:
    with pytest.raises(FrameError, match="magic"):
        decode(magic + encode(Ping(1))[4:])


@pytest.mark.parametrize("version", [PROTOCOL_VERSION + 1, PROTOCOL_VERSION - 1, 255])
def test_another_version_is_refused_naming_both(version: int) -> None:
    frame = MAGIC + bytes([version]) + encode(Ping(1))[5:]
    with pytest.raises(FrameError, match=f"version 0x{version:02x}, expected {PROTOCOL_VERSION}; update the older"):
        decode(frame)


@pytest.mark.parametrize("kind", [-1, 12, 255, 1 << 40, True, None, "Call", 2.0, [2]])
def test_an_unknown_kind_is_refused(kind: object) -> None:
    with pytest.raises(FrameError):
        decode(framed([kind, 1]))


@pytest.mark.parametrize("content", [None, 3, "text", {}, {"kind": 8}, [], [[PING_KIND, 1]]])
def test_anything_but_a_list_that_starts_with_a_kind_is_refused(content: object) -> None:
    with pytest.raises(FrameError):
        decode(framed(content))


@pytest.mark.parametrize("fields", [[], [1, 2], [1, None]])
def test_missing_and_extra_fields_are_refused_by_number(fields: list[object]) -> None:
    with pytest.raises(FrameError, match=f"Ping: expected 1 fields, got {len(fields)}"):
        decode(framed([PING_KIND, *fields]))


@pytest.mark.parametrize("value", [-1, True, None, 1.0, "1", [], {}])
def test_a_field_of_the_wrong_type_is_refused_by_name(value: object) -> None:
    with pytest.raises(FrameError, match=r"Ping\.id: expected int, got"):
        decode(framed([PING_KIND, value]))


@pytest.mark.parametrize("released", [[-1], [True], ["1"], [1.0], [None], 5, {}, [[1]]])
def test_a_list_of_the_wrong_items_is_refused_by_name(released: object) -> None:
    with pytest.raises(FrameError, match=r"Release\.released"):
        decode(framed([RELEASE_KIND, released]))


def test_maps_inside_values_are_refused() -> None:
    for value in ({}, {"a": 1}, [{"a": 1}]):
        with pytest.raises(FrameError, match="a value of type dict is not allowed in a message"):
            decode(framed([CALL_KIND, 7, "a", "m", {"x": value}, None, None, False, [], None, None, False]))


def test_duplicate_keys_are_refused() -> None:
    twice = HEADER + b"\x9c\x02\x07\xa1a\xa1m" + b"\x82\xa1x\x01\xa1x\x02" + b"\xc0\xc0\xc2\x90\xc0\xc0\xc2"
    with pytest.raises(FrameError, match="canonical"):
        decode(twice)


@pytest.mark.parametrize("number", [b"\xcc\x03", b"\xcd\x00\x03", b"\xce\x00\x00\x00\x03", b"\xcf\0\0\0\0\0\0\0\x03"])
def test_overlong_numbers_are_refused(number: bytes) -> None:
    with pytest.raises(FrameError, match="canonical"):
        decode(HEADER + b"\x92\x08" + number)


@pytest.mark.parametrize("text", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_bad_utf8_is_refused(text: bytes) -> None:
    packed = bytes([0xA0 | len(text)]) + text
    for frame in (
        HEADER + b"\x9c\x02\x07" + packed + b"\xa1m\x80\xc0\xc0\xc2\x90\xc0\xc0\xc2",
        HEADER + b"\x9c\x02\x07\xa1a\xa1m\x81" + packed + b"\x01\xc0\xc0\xc2\x90\xc0\xc0\xc2",
    ):
        with pytest.raises(FrameError):
            decode(frame)


@pytest.mark.parametrize("depth", [10, 100, 511, 512, 1_000, 10_000, 60_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(FrameError):
        decode(nested(depth))


@pytest.mark.parametrize(
    "claim",
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
     b"\xc9\xff\xff\xff\xff\x01", b"\xdc\xff\xff", b"\xde\xff\xff", b"\xda\xff\xff"],
    ids=["list32", "map32", "text32", "bytes32", "ext32", "list16", "map16", "text16"],
)  # fmt: skip
def test_a_header_that_claims_more_bytes_than_exist_is_refused(claim: bytes) -> None:
    for frame in (HEADER + claim, HEADER + b"\x92\x08" + claim, HEADER + b"\x9c\x02\x07\xa1a\xa1m\x81\xa1x" + claim):
        with pytest.raises(FrameError):
            decode(frame)


@pytest.mark.every_environment
def test_a_bomb_of_empty_maps_is_refused() -> None:
    with pytest.raises(FrameError):
        decode(HEADER + b"\xdc\xff\x00" + b"\x80" * 0xFF00)


def test_one_byte_over_the_limit_is_refused() -> None:
    with pytest.raises(FrameError, match=f"{MAX_FRAME_NBYTES + 1} bytes"):
        decode(HEADER + b"\xc0" * (MAX_FRAME_NBYTES + 1 - len(HEADER)))


@pytest.mark.parametrize(
    "value", [b"", b"abc", msgpack.Timestamp(1, 2), msgpack.ExtType(5, b""), msgpack.ExtType(0, b"x")]
)
def test_bytes_timestamps_and_foreign_extensions_are_refused(value: object) -> None:
    with pytest.raises(FrameError):
        decode(framed([CALL_KIND, 7, "a", "m", {"x": value}, None, None, False, [], None, None, False]))


def with_tensors(*packed: bytes, code: int = 1) -> bytes:
    tensors = [msgpack.ExtType(code, data) for data in packed]
    return framed([CALL_KIND, 7, "a", "m", {"x": tensors}, None, None, False, [], None, None, False])


GOOD = msgpack.packb([1, "a.0.1.x", 0, 64, 16, 0, 4])


def test_64_tensors_pass_and_65_are_refused() -> None:
    passed = decode(with_tensors(*[GOOD] * 64))
    assert isinstance(passed, Call)
    assert len(passed.arguments["x"]) == 64
    with pytest.raises(FrameError, match="65 tensors in one message"):
        decode(with_tensors(*[GOOD] * 65))


@pytest.mark.parametrize(
    "fields",
    [
        [], [1], [1, "a", 0, 0, 0], [-1, "a", 0, 0, 0, 0], ["1", "a", 0, 0, 0, 0], [1, 2, 0, 0, 0, 0],
        [1, "a", 0, -64, 0, 0], [1, "a", 0, 0, 0.0, 0], [1, "a", 0, 0, 0, True], [1, "a", 0, 0, 0, 0, -1],
        [1, "a", 0, 0, 0, 0, None], [1, "a", 0, 0, 0, 0, [1]], [1, "a", 0, 0, 0, 0, *[1] * 9], {}, None, "text",
        [1, "a" * 600, 0, 0, 0, 0], [1, b"", 0, 0, 0, 0], [1, "a", 0, 0, 0, 0, {}],
    ],
)  # fmt: skip
def test_a_malformed_tensor_reference_is_refused(fields: object) -> None:
    with pytest.raises(FrameError):
        decode(with_tensors(msgpack.packb(fields)))


def test_a_tensor_reference_cut_off_or_continued_is_refused() -> None:
    for data in [*(GOOD[:length] for length in range(len(GOOD))), GOOD + b"\x00", b"\x91" * 400]:
        with pytest.raises(FrameError):
            decode(with_tensors(data))


def test_a_tensor_reference_that_is_not_canonical_is_refused() -> None:
    with pytest.raises(FrameError, match="canonical"):
        decode(with_tensors(b"\x97\xcc\x01" + GOOD[2:]))


ON_DEVICE = [1, "a.0.1.x", 2**64 - 1, 5, 256, 16, 0, 4]  # lease, owner, pool, event, offset, nbytes, dtype, sizes


def test_the_device_tensor_of_this_file_is_of_this_protocol() -> None:
    passed = decode(with_tensors(msgpack.packb(ON_DEVICE), code=3))
    assert isinstance(passed, Call)
    assert passed.arguments["x"] == [WireDeviceTensor(1, "a.0.1.x", 2**64 - 1, 5, 256, 16, 0, (4,))]


@pytest.mark.parametrize(
    ("place", "value"),
    [(place, value) for place in range(8) for value in (-1, None, 1.0, True, "1", b"", [1], {})
     if (place, value) != (1, "1")],
)  # fmt: skip
def test_a_device_tensor_with_a_hostile_field_is_refused(place: int, value: object) -> None:
    changed: list[object] = [*ON_DEVICE]
    changed[place] = value
    with pytest.raises(FrameError):
        decode(with_tensors(msgpack.packb(changed), code=3))


@pytest.mark.parametrize("fields", [ON_DEVICE[:6], [*ON_DEVICE, *[1] * 8], [1, "a" * 600, *ON_DEVICE[2:]], {}, None])
def test_a_device_tensor_with_too_few_or_too_many_fields_is_refused(fields: object) -> None:
    with pytest.raises(FrameError):
        decode(with_tensors(msgpack.packb(fields), code=3))


def test_a_small_tensor_of_this_file_is_served() -> None:
    passed = decode(with_tensors(b"\0\x01" + struct.pack("!Q", 2) + b"12345678", code=2))
    assert isinstance(passed, Call)
    assert passed.arguments["x"] == [INLINE]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"\0\x01", b"\0\x01" + bytes(7), b"\0\x09" + bytes(72), b"\xff\x00abcd", b"\x0a\x00abcd",
        b"\0\x01" + struct.pack("!Q", 2) + b"1234567", b"\0\x01" + struct.pack("!Q", 2) + b"123456789",
        b"\0\x01" + struct.pack("!Q", 2**63) + b"1", b"\0\x02" + struct.pack("!QQ", 2**32, 2**32),
        b"\x04\x01" + struct.pack("!Q", 4097) + bytes(4097), b"\xff" * 60, b"\0\xff" + bytes(100),
    ],
)  # fmt: skip
def test_a_small_tensor_whose_bytes_do_not_match_its_shape_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode(with_tensors(data, code=2))


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"\x00", pickle.dumps({"a": 1}), pickle.dumps(print), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff" + bytes(8) + b"\x01\x7f", b"\x01\x00\x00", struct.pack("!Q", 2**64 - 1) * 100, HEADER, MAGIC,
    ],
)  # fmt: skip
def test_other_protocols_are_refused(frame: bytes) -> None:
    with pytest.raises(FrameError):
        decode(frame)


def test_one_flipped_bit_gives_a_message_or_a_frame_error() -> None:
    whole = encode(CALL)
    for position in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        try:
            message = decode(bytes(flipped))
        except FrameError:
            continue
        assert encode(message) == bytes(flipped)


def test_random_bytes_behind_a_good_header_give_a_message_or_a_frame_error() -> None:
    source = random.Random(0)
    for _ in range(3000):
        frame = HEADER + bytes([0x90 | source.randrange(16)]) + source.randbytes(source.randrange(64))
        try:
            message = decode(frame)
        except FrameError:
            continue
        assert encode(message) == frame


@pytest.mark.every_environment
@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_message_or_a_frame_error(data: bytes) -> None:
    for frame in (data, HEADER + data):
        try:
            message = decode(frame)
        except FrameError:
            continue
        assert encode(message) == frame


counters = st.integers(0, 2**64 - 1)
tensors = st.builds(
    WireTensor, counters, st.text(max_size=40), counters, counters, counters, counters,
    st.lists(counters, max_size=8).map(tuple),
)  # fmt: skip
on_device = st.builds(
    WireDeviceTensor, counters, st.text(max_size=40), counters, counters, counters, counters, counters,
    st.lists(counters, max_size=8).map(tuple),
)  # fmt: skip
small = st.binary(max_size=64).map(lambda data: InlineTensor(4, (len(data),), data)) | st.builds(
    InlineTensor, st.integers(0, 300), st.lists(counters, max_size=9).map(tuple), st.binary(max_size=20)
)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.booleans() | st.none()
leaves = numbers | st.text(max_size=20) | tensors | on_device | small
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
named = st.dictionaries(st.text(max_size=12), values, max_size=6)
released = st.lists(counters, max_size=5)
asked_norms = st.none() | st.lists(st.text(max_size=12), max_size=3)
norms = st.none() | st.dictionaries(st.text(max_size=12), st.floats(allow_nan=False), max_size=3)
onward = st.none() | st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3)
messages = (
    st.builds(Call, counters, st.text(), st.text(), named, st.none() | st.lists(st.text(), max_size=3),
              st.none() | named, st.booleans(), released, asked_norms, onward)
    | st.builds(Backward, counters, counters, named, st.booleans(), released, asked_norms, onward)
    | st.builds(Result, counters, named, st.none() | named, st.none() | counters, counters, counters, released, norms)
    | st.builds(Cancel, counters, counters)
    | st.builds(PoolOpened, st.text(max_size=40), counters, st.text(max_size=40))
)  # fmt: skip


@pytest.mark.every_environment
@settings(max_examples=300, deadline=None)
@given(messages)
def test_decoding_inverts_encoding_unless_encoding_refused(
    message: Call | Backward | Result | Cancel | PoolOpened,
) -> None:
    try:
        frame = encode(message)
    except FrameError:
        return
    assert decode(frame) == message
