"""Frames with the times at which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mora_data.reading.fitting import Clip, fitted

CLOSE_S = 1e-3  # Matroska rounds times to it
_MAX_GAP_S = 3600.0  # between frames; a longer one is a fault of the file
_MAX_STEP_BACK_S = 1.0  # a longer one is a clock that starts again


@dataclass(frozen=True)
class ShownFrame:
    """One frame, which is converted when it is wanted.

    Attributes:
        time_s: when it appears.
        duration_s: how long it is shown if no other one follows.
        size: (height, width) at which it is shown.
        convert: returns its pixels, uint8 (H, W, 3), turned but neither scaled nor cropped.
    """

    time_s: float
    duration_s: float
    size: tuple[int, int]
    convert: Callable[[], Clip]

    def pixels(self, size: tuple[int, int] | None = None) -> Clip:
        """Return uint8 (H, W, 3) at its shown size, or fitted to another one. Raises: Unreadable."""
        pixels: Clip = fitted(self.convert()[None], *(size or self.size), shown=self.size)[0]
        return pixels


@dataclass(frozen=True)
class Video:
    """Frames as a player shows them.

    Attributes:
        frames: uint8 (N, H, W, 3).
        fps: average frames per second.
        starts_s: when each frame appears; empty if they are evenly spaced.
        has_sound: whether the file also has sound, which is not read.
        note: what is wrong with the file though its frames can be used; empty if nothing is.
    """

    frames: Clip
    fps: float
    starts_s: Sequence[float] = field(default=(), compare=False)
    has_sound: bool = False
    note: str = ""


def at_rate(video: Video, fps: float) -> Clip:
    """Return the video's frames at another rate: for each new time, the frame on screen."""
    if not video.starts_s and abs(video.fps - fps) < 1e-6:
        return video.frames
    grid_s = np.arange(num_frames_at(video, fps)) / fps
    shown = np.searchsorted(_starts_s(video), grid_s + CLOSE_S, side="right") - 1
    frames: Clip = video.frames[np.maximum(shown, 0)]
    return frames


def num_frames_at(video: Video, fps: float) -> int:
    """The number of frames that `at_rate` gives, which is large for a short video with long pauses."""
    return max(1, round((float(_starts_s(video)[-1]) + 1.0 / video.fps) * fps))


def _starts_s(video: Video) -> npt.NDArray[np.float64]:
    return np.asarray(video.starts_s) if video.starts_s else np.arange(len(video.frames)) / video.fps


def is_even(starts_s: Sequence[float], fps: float) -> bool:
    """Whether frames appear every 1/fps seconds, but for rounding."""
    return bool(np.abs(np.asarray(starts_s) - np.arange(len(starts_s)) / fps).max() <= CLOSE_S)


def on_grid(frames: Iterable[ShownFrame], start_s: float, fps: float) -> Iterator[ShownFrame]:
    """Yield the frame on screen at `start_s`, `start_s + 1/fps`, ... until the last frame's end."""
    number, current = 0, None
    for frame in frames:
        while current is not None and frame.time_s > start_s + number / fps + CLOSE_S:
            yield current
            number += 1
        current = frame
    while current is not None and start_s + number / fps + CLOSE_S < current.time_s + current.duration_s:
        yield current
        number += 1


def from_time(frames: Iterable[ShownFrame], start_s: float) -> Iterator[ShownFrame]:
    """Yield the frame on screen at `start_s` and all later ones."""
    current = None
    for frame in frames:
        if current is not None and frame.time_s > start_s + CLOSE_S:
            yield current
        current = frame
    if current is not None and start_s < current.time_s + current.duration_s:
        yield current


class Clock:
    """Gives times that begin at 0 and always grow, from a file's timestamps.

    A timestamp that is missing, or far from the last one, follows it by one frame, and later ones are moved with it: so
    a recording continues whose clock starts again. A frame whose timestamp is repeated hides the one before it.
    """

    def __init__(self, rate: float, zero_s: float | None = None) -> None:
        self._spacing_s = 1.0 / rate
        self._zero_s = zero_s
        self._last_s: float | None = None

    @property
    def zero_s(self) -> float:
        """The timestamp that is time 0."""
        return self._zero_s or 0.0

    def time_s(self, timestamp_s: float | None) -> float:
        """The time of the next frame."""
        if self._zero_s is None:
            self._zero_s = timestamp_s or 0.0
        time_s = None if timestamp_s is None else timestamp_s - self._zero_s
        if self._last_s is None:
            self._last_s = time_s or 0.0
            return self._last_s
        expected_s = self._last_s + self._spacing_s
        if time_s is None:
            time_s = expected_s
        elif abs(time_s - self._last_s) > _MAX_GAP_S or time_s < self._last_s - _MAX_STEP_BACK_S:
            self._zero_s = (timestamp_s or 0.0) - expected_s
            time_s = expected_s
        self._last_s = max(time_s, self._last_s + self._spacing_s / 1000)
        return self._last_s
