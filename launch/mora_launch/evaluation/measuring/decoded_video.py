"""Decodes videos ahead of their measurement, one after the other, in a thread: each video once for all metrics."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mora_data.clips import open_video
from mora_data.reading.fitting import Clip
from mora_runtime.errors import DatasetError


@dataclass(frozen=True)
class DecodedVideo:
    """All frames of a video as a player shows them, each uint8 (H, W, 3), and their rate."""

    frames: list[Clip]
    fps: float


class VideoTooLarge(DatasetError):
    """The limit forbids the video, which with another limit can be measured."""


def decode(path: Path, max_nbytes: int) -> DecodedVideo:
    """Decode a whole video.

    Raises:
        VideoTooLarge: it has more bytes than allowed.
        DatasetError: it cannot be read or breaks off, or its frames have several sizes.
    """
    found: list[Clip] = []
    nbytes = 0
    with open_video(path) as video:
        for frame in video.frames():
            pixels = frame.pixels()
            nbytes += pixels.nbytes
            if nbytes > max_nbytes:
                raise VideoTooLarge(
                    f"{path.name}: expected at most {max_nbytes} bytes decoded (evaluation.max_video_nbytes), got more "
                    f"in {len(found) + 1} frames of {pixels.shape[1]}x{pixels.shape[0]}; cut it or raise the limit"
                )
            if found and pixels.shape != found[0].shape:
                raise DatasetError(
                    f"{path.name}: expected frames of one size, got {found[0].shape[1]}x{found[0].shape[0]} and "
                    f"{pixels.shape[1]}x{pixels.shape[0]} in frame {len(found)}"
                )
            found.append(pixels)
        if video.fault:
            raise DatasetError(f"{path.name}: {video.fault}; a part of a video would be measured as the whole")
        rate = video.rate
    if not found:
        raise DatasetError(f"{path.name}: has no frames")
    return DecodedVideo(found, rate)


class Decoder:
    """A context manager with one thread that decodes.

    Args:
        max_nbytes: of one video.
        wake: called by the thread when a video is decoded.
    """

    def __init__(self, max_nbytes: int, wake: Callable[[], None]) -> None:
        self._max_nbytes = max_nbytes
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decodes")

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def submit(self, path: Path) -> Future[DecodedVideo]:
        """Decode a video after those that were submitted before it."""
        future = self._thread.submit(decode, path, self._max_nbytes)
        future.add_done_callback(lambda _: self._wake())
        return future
