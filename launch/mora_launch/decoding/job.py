"""One picture or video to decode: what it is, what it will cost, and what comes of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from mora_runtime.errors import Cancelled

from mora_launch.decoding.clip import Clip, Video
from mora_launch.decoding.picture_header import KINDS, is_picture, read_header
from mora_launch.decoding.video_header import check_gif, video_format
from mora_launch.limits import (
    DECODE_DEADLINE_S,
    SMALL_DECODE_DEADLINE_S,
    SMALL_PICTURE_NBYTES,
    SMALL_PICTURE_NUM_PIXELS,
)
from mora_launch.tasks.errors import BadRequest

_VIDEO_COST = 1 << 30  # more than any picture's: how much there is to decode is not known before
Decoded = Clip | Video


@dataclass(eq=False)
class DecodeJob:
    """Work for a decoder; `future` gives a Clip (H, W, 3) of a picture, a Video of a video.

    Attributes:
        whose: field of the request that the content came in, for errors.
        size: (height, width) of the result.
        cost: pixels that will be decoded, about; cheap work is done first.
    """

    kind: Literal["picture", "video"]
    content: bytes
    whose: str
    size: tuple[int, int]
    max_frames: int
    cost: int
    since_s: float = field(default_factory=time.monotonic)
    future: Future[Decoded] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def is_small(self) -> bool:
        """Whether it is done in a moment."""
        return self.cost <= SMALL_PICTURE_NUM_PIXELS and len(self.content) <= SMALL_PICTURE_NBYTES

    @property
    def deadline_s(self) -> float:
        """How long a decoder may work on it."""
        return SMALL_DECODE_DEADLINE_S if self.is_small else DECODE_DEADLINE_S

    @property
    def most_nbytes(self) -> int:
        """What its frames may take."""
        return (self.max_frames if self.kind == "video" else 1) * self.size[0] * self.size[1] * 3

    def cancel(self) -> None:
        """The result is not wanted any more: a decoder that works on it is killed."""
        self.cancelled.set()
        self.fail(Cancelled("the client has gone"))

    def finish(self, result: Decoded) -> None:
        """Hand the result over; nothing where it is not wanted any more."""
        with suppress(InvalidStateError):
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """As `finish`, with an error."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


def decode_job(content: bytes, whose: str, *, size: tuple[int, int], max_frames: int) -> DecodeJob:
    """The job for some bytes, told apart by their first ones.

    Raises:
        BadRequest: naming `whose`: they are no picture or video, or cost too much as far as their headers say.
    """
    kind = video_format(content)
    if kind is None and not is_picture(content):
        raise BadRequest(whose, f"expected {KINDS}, or an mp4, webm or gif video, got something else")
    if kind is None:
        cost = read_header(content, whose).num_pixels + len(content)
        return DecodeJob("picture", content, whose, size, max_frames, cost)
    num_pixels = check_gif(content, whose, max_frames) if kind == "gif" else 0
    return DecodeJob("video", content, whose, size, max_frames, _VIDEO_COST + num_pixels + len(content))
