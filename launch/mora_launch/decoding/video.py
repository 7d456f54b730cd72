"""Decoding of a video of a request, within a budget."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass, field

import numpy as np
from mora_data.reading.fitting import Clip
from mora_data.reading.opening import opened_video
from mora_data.reading.timeline import ShownFrame, Video, is_even
from mora_data.reading.unreadable import Unreadable

from mora_launch.limits import DECODE_DEADLINE_S, MAX_CLIP_NBYTES, MAX_PICTURE_NUM_PIXELS, MAX_VIDEO_NUM_PIXELS
from mora_launch.tasks.errors import BadRequest


@dataclass(frozen=True)
class Budget:
    """The limits on decoding one video; without limits by default, for the user's own files."""

    max_num_pixels: float = math.inf  # of all frames together
    deadline_s: float = math.inf


SERVED = Budget(MAX_VIDEO_NUM_PIXELS, DECODE_DEADLINE_S)


@dataclass
class DecodedVideo:
    """As `Video`, with its frames one by one, so that they are copied only once."""

    frames: list[Clip] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    fps: float = 0.0
    has_sound: bool = False
    note: str = ""


def read_video(content: bytes, whose: str, *, max_frames: int, size: tuple[int, int] | None = None) -> Video:
    """Decode a video from the user's own file, without limits on its cost; otherwise like `decode_frames`."""
    found = decode_frames(content, whose, max_frames=max_frames, size=size, budget=Budget())
    return Video(np.stack(found.frames), found.fps, found.starts_s, found.has_sound, found.note)


def decode_frames(
    content: bytes, whose: str, *, max_frames: int, size: tuple[int, int] | None, budget: Budget
) -> DecodedVideo:
    """Return the frames of a video as a player shows them.

    A video that breaks off is read up to there, and `note` says so.

    Args:
        size: (height, width) of every frame, as by `fitted`; by default that of the first frame.

    Raises:
        BadRequest: for `whose`: another kind of file, a broken file, a single frame, too many frames, or too high a
            cost.
    """
    found = DecodedVideo()
    try:
        with opened_video(io.BytesIO(content), _Costs(whose, max_frames, budget)) as video:
            for frame in video.frames():
                _add(found, frame, whose, size)
            found.fps, found.has_sound, found.note = video.rate, video.has_sound, video.fault
    except Unreadable as error:
        raise BadRequest(whose, str(error)) from None
    if len(found.frames) < 2:
        raise BadRequest(
            whose, f"expected a video of at least 2 frames, got {len(found.frames)}; send a picture as an image"
        )
    if is_even(found.starts_s, found.fps):
        found.starts_s.clear()
    return found


def _add(found: DecodedVideo, frame: ShownFrame, whose: str, size: tuple[int, int] | None) -> None:
    """Add a frame, which is converted here."""
    first = found.frames[0].shape[:2] if found.frames else frame.size  # a later frame may have another size
    found.frames.append(frame.pixels(size or (first[0], first[1])))
    found.starts_s.append(frame.time_s)
    if len(found.frames) * found.frames[0].nbytes > MAX_CLIP_NBYTES:
        raise BadRequest(whose, f"expected at most {MAX_CLIP_NBYTES} bytes decoded; cut the video or shrink it")


class _Costs:
    """Counts the cost of one video so far; each method raises BadRequest if it exceeds the budget."""

    def __init__(self, whose: str, max_frames: int, budget: Budget) -> None:
        self._whose = whose
        self._max_frames = max_frames
        self._budget = budget
        self._deadline = time.monotonic() + budget.deadline_s
        self._num_packets = self._num_frames = self._num_pixels = 0

    def expect(self, num_frames: int, width: int, height: int) -> None:
        """Check the size and number of frames that the container claims."""
        self._check_frames(num_frames)
        self._check_pixels(width * height, max(1, num_frames))

    def count_packet(self) -> None:
        """Count a packet, whether it gives a frame or not."""
        self._num_packets += 1
        if self._num_packets > 2 * self._max_frames + 100:
            self._check_frames(self._num_packets)
        if time.monotonic() > self._deadline:
            limit = f"within {self._budget.deadline_s:g} s"
            raise BadRequest(self._whose, f"expected a video that is decoded {limit}; cut the video or shrink it")

    def count_frame(self, width: int, height: int) -> None:
        """Count a decoded frame, whose size may be larger than that of earlier ones."""
        self._num_frames += 1
        self._num_pixels += width * height
        self._check_frames(self._num_frames)
        self._check_pixels(width * height, 1)
        self._check_pixels(0, 1, self._num_pixels)

    def _check_frames(self, number: int) -> None:
        if number > self._max_frames:
            raise BadRequest(self._whose, f"expected at most {self._max_frames} frames; cut the video")

    def _check_pixels(self, of_frame: int, num_frames: int, total: int = 0) -> None:
        if of_frame > MAX_PICTURE_NUM_PIXELS:
            raise BadRequest(self._whose, f"expected at most {MAX_PICTURE_NUM_PIXELS} pixels a frame, got {of_frame}")
        total = max(total, of_frame * num_frames)
        if total > self._budget.max_num_pixels:
            most = f"{self._budget.max_num_pixels} pixels in all frames"
            raise BadRequest(self._whose, f"expected at most {most}, got {total}; cut the video or shrink it")
