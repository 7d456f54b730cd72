"""Every message is decoded unchanged; the sender refuses messages that the receiver would refuse."""

import math
from typing import Any, get_args

import msgpack
import pytest
from mora_runtime.errors import FrameError
from mora_runtime.limits import (
    INLINE_TENSOR_NBYTES,
    MAX_FRAME_NBYTES,
    MAX_LIST_LENGTH,
    MAX_NUM_ARGUMENTS,
    MAX_STRING_LENGTH,
)
from mora_runtime.wire.codec import MAGIC, decode, encode
from mora_runtime.wire.messages import (
    KIND_CODES,
    Backward,
    Call,
    Cancel,
    Drop,
    Failure,
    Hello,
    InlineTensor,
    Message,
    Part,
    Ping,
    Pong,
    PoolOpened,
    Release,
    Result,
    Welcome,
    WireDeviceTensor,
    WireTensor,
)

TENSOR = WireTensor(1, "image.0.1.0123456789abcdef", 3, 4096, 24, 0, (2, 3))
INLINE = InlineTensor(0, (2, 1), b"12345678")
ON_DEVICE = WireDeviceTensor(3, "image.0.1.0123456789abcdef", 2**64 - 1, 63, 256, 24, 0, (2, 3))
SCALAR = WireTensor(2**64 - 1, "a", 0, 2**64 - 1, 4, 9, ())
EXAMPLES: list[Message] = [
    Hello(1, "coordinator.0.1.0123456789abcdef"),
    Welcome(1, "image.0.1.x", "sd3", "lock", {"image": ["generate", "encode"], "none": []}, "token"),
    Call(1, "a", "m", {"z": TENSOR, "p": "höchst", "l": [1.5, [None, True], SCALAR, INLINE]}, None, None, False, []),
    Call(2, "image", "generate", {}, [], {"loss": SCALAR}, True, [1, 2**63]),
    Call(3, "image", "generate", {"z": TENSOR}, ["z"], None, False, []),
    Call(3, "video", "loss", {"z": TENSOR}, ["z"], {"loss": SCALAR}, True, [], ["z"]),
    Backward(4, 9, {"o.0": TENSOR}, False, []),
    Backward(4, 9, {}, False, [2], ["x", "y"]),
    Result(5, {"x": [TENSOR, SCALAR], "inf": math.inf, "low": -(2**63)}, None, 12, 345, 0, [7]),
    Result(6, {}, {"z": INLINE}, None, 0, 9, []),
    Result(6, {}, {"z": INLINE}, None, 0, 9, [], {"z": 1.5, "x": math.inf}),
    Failure(7, "agent_failed", "what\nhappened", [1]),
    Drop([1, 2, 3], [4]),
    Release([]),
    Ping(8),
    Pong(9, "image.generate", *range(10, 31)),
    Cancel(10, 3),
    Cancel(11, 3, 2),
    Call(4, "image", "forward", {"x": ON_DEVICE}, ["x"], None, False, [], None, {"y": "video.0.1.x"}),
    Backward(5, 9, {"y": [ON_DEVICE]}, False, [], None, {"x": "image.0.1.x"}),
    PoolOpened("image.0.1.x", 2**64 - 1, "video.0.1.x"),
    Call(5, "video", "animate", {}, None, None, False, [], None, None, True),
    Part(5, {"outputs": TENSOR, "start": 4}, [1]),
]


def call_with(value: Any) -> Call:
    return Call(1, "a", "m", {"x": value}, None, None, False, [])


def nested_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_wire(message: Message) -> None:
    returned = decode(encode(message))
    assert type(returned) is type(message)
    assert returned == message


def test_the_examples_show_every_kind_of_message() -> None:
    assert {type(message) for message in EXAMPLES} == set(KIND_CODES)


def test_the_code_of_every_kind_of_message_is_pinned() -> None:
    """Written by hand: a change here changes the wire, and needs another PROTOCOL_VERSION."""
    assert {kind.__name__: code for kind, code in KIND_CODES.items()} == {
        "Hello": 0, "Welcome": 1, "Call": 2, "Backward": 3, "Result": 4, "Failure": 5,
        "Drop": 6, "Release": 7, "Ping": 8, "Pong": 9, "Cancel": 10, "PoolOpened": 11, "Part": 12,
    }  # fmt: skip
    assert set(KIND_CODES) == set(get_args(Message))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_frame_starts_with_the_code_of_its_kind(message: Message) -> None:
    unpacker = msgpack.Unpacker()
    unpacker.feed(encode(message)[len(MAGIC) + 1 :])  # after the byte of the version
    unpacker.read_array_header()
    assert unpacker.unpack() == KIND_CODES[type(message)]


def test_not_a_number_survives_the_wire() -> None:
    returned = decode(encode(call_with(math.nan)))
    assert isinstance(returned, Call)
    assert math.isnan(returned.arguments["x"])


@pytest.mark.parametrize(
    "value",
    [
        nested_list(8),
        list(range(MAX_LIST_LENGTH)),
        "x" * MAX_STRING_LENGTH,
        "ü" * (MAX_STRING_LENGTH // 2),
        2**64 - 1,
        [TENSOR] * 64,
        [INLINE] * 64,
        InlineTensor(4, (1,) * 7 + (INLINE_TENSOR_NBYTES,), bytes(INLINE_TENSOR_NBYTES)),
        InlineTensor(9, (3, 0), b""),
    ],
    ids=["depth", "list", "text", "umlauts", "int", "tensors", "small", "largest", "empty"],
)
def test_a_value_at_the_limit_crosses(value: Any) -> None:
    assert decode(encode(call_with(value))) == call_with(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (nested_list(9), "nested deeper than 8"),
        (list(range(MAX_LIST_LENGTH + 1)), "list of 1025 values, expected at most 1024"),
        ("x" * (MAX_STRING_LENGTH + 1), "expected at most 32768 bytes"),
        ("ü" * (MAX_STRING_LENGTH // 2 + 1), "expected at most 32768 bytes"),
        (2**64, "cannot be sent"),
        (-(2**63) - 1, "cannot be sent"),
        ([TENSOR] * 65, "65 tensors in one message, expected at most 64"),
        (b"bytes", "type bytes is not allowed in a message"),
        ((1, 2), "type tuple is not allowed in a message"),
        ({"a": 1}, "type dict is not allowed in a message"),
        (object(), "type object is not allowed in a message"),
        ("\udc80", "cannot be sent"),
        (WireTensor(-1, "a", 0, 0, 0, 0, ()), "numbers >= 0"),
        (WireTensor(1, "a", 0, 0, 0, 0, (1,) * 9), "at most 8 sizes"),
        (InlineTensor(0, (1,) * 9, bytes(4)), "small tensor of shape"),
        (InlineTensor(0, (-1,), b""), "need -4; expected at most"),
        (InlineTensor(256, (1,), bytes(4)), "dtype code 256, expected 0 to 9"),
        (WireTensor(1, "a" * 600, 0, 0, 0, 0, ()), "expected at most 512"),
    ],
)
def test_values_that_the_receiver_would_refuse_are_refused_by_the_sender(value: Any, text: str) -> None:
    with pytest.raises(FrameError, match=text):
        encode(call_with(value))


def test_too_many_arguments_and_fields_of_the_wrong_type_are_refused_by_the_sender() -> None:
    with pytest.raises(FrameError, match="65 named values, expected at most 64"):
        encode(Call(1, "a", "m", {str(n): n for n in range(MAX_NUM_ARGUMENTS + 1)}, None, None, False, []))
    with pytest.raises(FrameError, match=r"Call\.id: expected int"):
        encode(Call(-1, "a", "m", {}, None, None, False, []))
    with pytest.raises(FrameError, match=r"Call\.grad"):
        encode(Call(1, "a", "m", {}, [1], None, False, []))  # type: ignore[list-item]


def test_a_message_larger_than_a_frame_is_refused_with_what_to_do() -> None:
    halves = ["x" * MAX_STRING_LENGTH, "y" * (MAX_FRAME_NBYTES - MAX_STRING_LENGTH)]
    with pytest.raises(FrameError, match="send bulk data as tensors"):
        encode(call_with(halves))


def test_the_largest_frame_crosses() -> None:
    first = "x" * MAX_STRING_LENGTH
    overhead = len(encode(call_with([first, "y" * 30_000]))) - MAX_STRING_LENGTH - 30_000
    last = MAX_FRAME_NBYTES - MAX_STRING_LENGTH - overhead
    frame = encode(call_with([first, "y" * last]))
    assert len(frame) == MAX_FRAME_NBYTES
    assert decode(frame) == call_with([first, "y" * last])
    with pytest.raises(FrameError, match=f"takes {MAX_FRAME_NBYTES + 1} bytes"):
        encode(call_with([first, "y" * (last + 1)]))


def test_a_refused_message_leaves_nothing_in_the_next_one() -> None:
    with pytest.raises(FrameError):
        encode(call_with(["before", 2**64]))
    assert decode(encode(Ping(5))) == Ping(5)
