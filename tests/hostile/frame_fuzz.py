"""Frames and tensor metadata that no honest peer sends, many of them: `python frame_fuzz.py --frames 1000000`.

Valid messages of every kind are the seeds. They are mutated on the wire (bits, cuts, splices, claims of other lengths)
and before packing (fields replaced by hostile values), because random bytes hardly ever pass the header.
The result must be one message or one named error, and cost no memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgpack
from mora_runtime.errors import FrameError, MoraError
from mora_runtime.wire.codec import MAGIC, decode, encode
from mora_runtime.wire.messages import (
    PROTOCOL_VERSION,
    Backward,
    Call,
    Cancel,
    Drop,
    Failure,
    Hello,
    InlineTensor,
    Message,
    Ping,
    Pong,
    PoolOpened,
    Release,
    Result,
    Welcome,
    WireDeviceTensor,
    WireTensor,
)
from mora_runtime.wire.tensor_meta import check_bounds, checked_meta

_TENSOR = WireTensor(1, "coordinator.0.1.0123456789abcdef", 0, 4096, 16, 0, (2, 2))
_ON_DEVICE = WireDeviceTensor(1, "image.0.1.0123456789abcdef", 1 << 63, 5, 256, 16, 0, (2, 2))
_INLINE = InlineTensor(0, (2,), b"12345678")
SEEDS: tuple[Message, ...] = (
    Hello(PROTOCOL_VERSION, "peer.0"),
    Welcome(PROTOCOL_VERSION, "image.0.1.ab", "sd3", "0123", {"image": ["render", "abandon"]}, "f" * 32),
    Call(7, "echo", "add", {"x": _TENSOR, "n": [1, -2, 3.5, None, True, "ü"]}, ["x"], {"o": _INLINE}, True, [4], ["x"]),
    Call(8, "echo", "add", {"x": _ON_DEVICE}, None, None, False, [], None, {"value": "video.0.1.ab"}),
    Backward(8, 3, {"y": _TENSOR}, False, [1], ["x"], {"x": "image.0.1.ab"}),
    Result(7, {"y": _TENSOR, "t": "text"}, {"x": _INLINE}, 4, 10, 20, [9], {"x": 1.5}),
    Failure(7, "agent_failed", "expected / got", [2]),
    Drop([1, 2, 3], []),
    Release([1, 2]),
    Ping(1),
    Pong(1, "a.b", *range(5, len(Pong._fields) + 3)),
    Cancel(1, 2),
    PoolOpened("image.0.1.ab", 1 << 63, "video.0.1.ab"),
)
_HOSTILE: tuple[Any, ...] = (
    -1, 0, 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1, 1e308, float("nan"), "", "\0", "x" * 5000, b"",
    b"\xff" * 9, None, True, [], [[]], {}, {"a": 1}, [0] * 300, {"": {"": {}}}, msgpack.ExtType(1, b"\xff" * 20),
    msgpack.ExtType(5, b""),
)  # fmt: skip
_CLAIMS = (b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 50)
_HEADER = MAGIC + bytes([PROTOCOL_VERSION])
_INTEGERS = (-1, 0, 1, 2, 3, 7, 8, 9, 16, 63, 64, 65, 4095, 4096, 2**20, 2**31, 2**32, 2**62, 2**63 - 1, 2**64 - 32)


class FrameFuzzer:
    """Makes hostile frames; the same seed makes the same frames."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._frames = [encode(message) for message in SEEDS]
        self._mutations: tuple[Callable[[bytes], bytes], ...] = (
            self._flip, self._flip, self._cut, self._splice, self._overwrite, self._replace_field, self._replace_field,
            self._noise,
        )  # fmt: skip

    def frame(self) -> bytes:
        """Make one more frame: a seed message after one to four mutations."""
        made = self._random.choice(self._frames)
        for _ in range(self._random.randint(1, 4)):
            made = self._random.choice(self._mutations)(made)
        return made

    def metadata(self) -> tuple[int, tuple[int, ...], int, int, int]:
        """dtype code, shape, offset, nbytes and size of the segment, each at a limit or beyond it."""
        pick = self._random.choice
        shape = tuple(pick(_INTEGERS) for _ in range(pick((0, 1, 2, 3, 8, 9, 40))))
        return pick((-1, 0, 1, 5, 11, 255, 2**40)), shape, pick(_INTEGERS), pick(_INTEGERS), pick(_INTEGERS)

    def _flip(self, frame: bytes) -> bytes:
        if not frame:
            return b"\x01"
        changed = bytearray(frame)
        changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _cut(self, frame: bytes) -> bytes:
        return frame[: self._random.randrange(len(frame) + 1)]

    def _splice(self, frame: bytes) -> bytes:
        other = self._random.choice(self._frames)
        return frame[: self._random.randrange(len(frame) + 1)] + other[self._random.randrange(len(other)) :]

    def _overwrite(self, frame: bytes) -> bytes:
        at = self._random.randrange(len(frame) + 1)
        claim = self._random.choice(_CLAIMS)
        return frame[:at] + claim + frame[at + len(claim) :]

    def _replace_field(self, frame: bytes) -> bytes:
        try:
            fields = msgpack.unpackb(frame[len(_HEADER) :], strict_map_key=False)
            fields[self._random.randrange(len(fields))] = self._random.choice(_HOSTILE)
            packed: bytes = _HEADER + msgpack.packb(fields)
        except (ValueError, TypeError, IndexError, OverflowError, KeyError, msgpack.UnpackException, RecursionError):
            return self._flip(frame)  # an earlier mutation left nothing that can be taken apart
        return packed

    def _noise(self, frame: bytes) -> bytes:
        return _HEADER + self._random.randbytes(self._random.randrange(200))


def attack(num_frames: int, seed: int) -> Counter[str]:
    """Decode this many frames and check the metadata of as many tensors; returns the number of results by name.

    An error that is not one of this project is raised.
    """
    fuzzer = FrameFuzzer(seed)
    outcomes: Counter[str] = Counter()
    for _ in range(num_frames):
        try:
            outcomes[type(decode(fuzzer.frame())).__name__] += 1
        except FrameError:
            outcomes["refused frame"] += 1
        dtype, shape, offset, nbytes, segment_nbytes = fuzzer.metadata()
        try:
            meta = checked_meta(dtype, shape)
            check_bounds(meta, offset=offset, nbytes=nbytes, segment_nbytes=segment_nbytes)
            assert 0 <= offset <= segment_nbytes - nbytes or nbytes == 0, "a tensor outside its segment was let through"
            outcomes["accepted tensor"] += 1
        except MoraError:
            outcomes["refused tensor"] += 1
    return outcomes


def resident_nbytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as handle:
        return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Attack from the command line; prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    attack(20_000, arguments.seed + 1)  # caches fill
    before_nbytes, started_s = resident_nbytes(), time.perf_counter()
    outcomes = attack(arguments.frames, arguments.seed)
    report = {
        "python": sys.version.split()[0],
        "num_frames": arguments.frames,
        "spent_s": round(time.perf_counter() - started_s, 1),
        "rss_growth_nbytes": resident_nbytes() - before_nbytes,
        "outcomes": dict(outcomes.most_common()),
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
