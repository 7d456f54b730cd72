"""One picture or video to decode: its content, its cost and its result."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from mora_data.reading.file_kind import PICTURES, VIDEOS, kind_of
from mora_data.reading.fitting import Clip
from mora_data.reading.timeline import Video
from mora_runtime.errors import Cancelled

from mora_launch.decoding.picture_header import read_header
from mora_launch.decoding.video_header import check_animation
from mora_launch.limits import (
    DECODE_DEADLINE_S,
    SMALL_DECODE_DEADLINE_S,
    SMALL_PICTURE_NBYTES,
    SMALL_PICTURE_NUM_PIXELS,
)
from mora_launch.tasks.errors import BadRequest

_VIDEO_COST = 1 << 30  # more than any picture's, because the size of a video is not known before decoding
_NUM_PIXELS_PER_S = 100 << 20  # roughly, of any decoder
Decoded = Clip | Video


@dataclass(eq=False)
class DecodeJob:
    """Work for a decoder; `future` gives a Clip (H, W, 3) for a picture, a Video for a video.

    Attributes:
        whose: field of the request that contained it, for errors.
        size: (height, width) of the result.
        cost: approximate number of pixels to decode; cheap work of a tenant is done first.
        tenant: on whose behalf it is decoded.
    """

    kind: Literal["picture", "video"]
    content: bytes
    whose: str
    size: tuple[int, int]
    max_frames: int
    cost: int
    tenant: str = ""
    since_s: float = field(default_factory=time.monotonic)
    future: Future[Decoded] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def is_small(self) -> bool:
        """Whether decoding takes only a moment."""
        return self.cost <= SMALL_PICTURE_NUM_PIXELS and len(self.content) <= SMALL_PICTURE_NBYTES

    @property
    def expected_s(self) -> float:
        """Estimate of the time that decoding takes."""
        return self.cost / _NUM_PIXELS_PER_S

    @property
    def deadline_s(self) -> float:
        """Time limit of decoding."""
        return SMALL_DECODE_DEADLINE_S if self.is_small else DECODE_DEADLINE_S

    @property
    def most_nbytes(self) -> int:
        """Upper bound of the size of its frames."""
        return (self.max_frames if self.kind == "video" else 1) * self.size[0] * self.size[1] * 3

    def cancel(self) -> None:
        """Give up the job; a decoder that works on it is killed."""
        self.cancelled.set()
        self.fail(Cancelled("the client has disconnected"))

    def finish(self, result: Decoded) -> None:
        """Set the result, unless the job was cancelled."""
        with suppress(InvalidStateError):
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Set an error as the result, unless the job was cancelled."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


def decode_job(content: bytes, whose: str, *, size: tuple[int, int], max_frames: int) -> DecodeJob:
    """Return the job for a file, whose kind is recognised by its first bytes.

    Raises:
        BadRequest: for `whose`: it is neither a picture nor a video, or its headers say that it costs too much.
    """
    kind = kind_of(content)
    if kind.media is None:
        raise BadRequest(whose, f"is {kind}; expected a {PICTURES}, or an {VIDEOS}")
    if kind.media == "picture":
        cost = read_header(content, whose).num_pixels + len(content)
        return DecodeJob("picture", content, whose, size, max_frames, cost)
    num_pixels = check_animation(content, kind, whose, max_frames)
    return DecodeJob("video", content, whose, size, max_frames, _VIDEO_COST + num_pixels + len(content))
