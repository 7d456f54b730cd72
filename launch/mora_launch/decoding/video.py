"""Decoding of a video. FFmpeg gets the bytes and the container's name, never a file name or address, and may use only a
few decoders. So no file can make it open another file, or a decoder that ordinary videos do not need."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass

import av
import numpy as np

from mora_launch.decoding.clip import Clip, Video, fitted
from mora_launch.decoding.video_header import video_format
from mora_launch.limits import DECODE_DEADLINE_S, MAX_CLIP_NBYTES, MAX_PICTURE_NUM_PIXELS, MAX_VIDEO_NUM_PIXELS
from mora_launch.tasks.errors import BadRequest

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libvpx", "libvpx-vp9", "mpeg4", "gif", "ffv1", "mjpeg")
_OPTIONS = {"codec_whitelist": ",".join(CODECS), "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif"}


@dataclass(frozen=True)
class Budget:
    """The limits on decoding one video; without limits by default, for the user's own files."""

    max_num_pixels: float = math.inf  # of all frames together
    deadline_s: float = math.inf


SERVED = Budget(MAX_VIDEO_NUM_PIXELS, DECODE_DEADLINE_S)


def read_video(content: bytes, field: str, *, max_frames: int, size: tuple[int, int] | None = None) -> Video:
    """Decode a video from the user's own file, without limits on its cost; otherwise like `decode_frames`."""
    frames, fps = decode_frames(content, field, max_frames=max_frames, size=size, budget=Budget())
    return Video(np.stack(frames), fps)


def decode_frames(
    content: bytes, field: str, *, max_frames: int, size: tuple[int, int] | None, budget: Budget
) -> tuple[list[Clip], float]:
    """Return the frames of an mp4, webm or gif, each uint8 (height, width, 3), and the frames per second.

    Args:
        size: (height, width) of every frame, as by `fitted`; by default that of the first frame.

    Raises:
        BadRequest: for `field`: another format, a broken file, a single frame, too many frames, or too high a cost.
    """
    container_format = video_format(content)
    if container_format is None:
        raise BadRequest(field, "expected an mp4, webm or gif video")
    try:
        frames, fps = _decode(content, container_format, field, max_frames, size, budget)
    except (av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
        raise BadRequest(field, f"cannot be decoded as a video ({error})") from None
    if len(frames) < 2:
        raise BadRequest(field, f"expected a video of at least 2 frames, got {len(frames)}; send a picture as an image")
    return frames, fps


def _decode(
    content: bytes, container_format: str, field: str, max_frames: int, size: tuple[int, int] | None, budget: Budget
) -> tuple[list[Clip], float]:
    frames: list[Clip] = []
    nbytes = 0
    with av.open(io.BytesIO(content), "r", format=container_format, options=_OPTIONS) as container:
        if not container.streams.video:
            raise BadRequest(field, "has no video stream")
        stream = container.streams.video[0]
        if stream.codec_context.name not in CODECS:
            raise BadRequest(field, f"expected a codec of {', '.join(CODECS)}, got {stream.codec_context.name}")
        costs = _Costs(field, max_frames, budget)
        costs.look(stream)
        fps = float(stream.average_rate or 8)
        for packet in container.demux(stream):
            costs.count_packet()
            for frame in packet.decode():
                costs.count_frame(frame)
                picture = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                size = size or (frame.height, frame.width)
                frames.append(fitted(picture[None], *size)[0])
                nbytes += frames[-1].nbytes
                if nbytes > MAX_CLIP_NBYTES:
                    most = f"{MAX_CLIP_NBYTES} bytes decoded"
                    raise BadRequest(field, f"expected at most {most}; cut the video or shrink it")
    return frames, fps


class _Costs:
    """Counts the cost of one video so far; each method raises BadRequest if it exceeds the budget."""

    def __init__(self, field: str, max_frames: int, budget: Budget) -> None:
        self._field = field
        self._max_frames = max_frames
        self._budget = budget
        self._deadline = time.monotonic() + budget.deadline_s
        self._num_packets = self._num_frames = self._num_pixels = 0

    def look(self, stream: av.VideoStream) -> None:
        """Check the size and number of frames that the container claims."""
        self._check_frames(stream.frames)
        self._check_pixels(stream.width * stream.height, max(1, stream.frames))

    def count_packet(self) -> None:
        """Count a packet, whether it gives a frame or not."""
        self._num_packets += 1
        if self._num_packets > 2 * self._max_frames + 100:
            self._check_frames(self._num_packets)
        if time.monotonic() > self._deadline:
            limit = f"within {self._budget.deadline_s:g} s"
            raise BadRequest(self._field, f"expected a video that is decoded {limit}; cut the video or shrink it")

    def count_frame(self, frame: av.VideoFrame) -> None:
        """Count a decoded frame, whose size may be larger than that of earlier ones."""
        self._num_frames += 1
        self._num_pixels += frame.width * frame.height
        self._check_frames(self._num_frames)
        self._check_pixels(frame.width * frame.height, 1)
        self._check_pixels(0, 1, self._num_pixels)

    def _check_frames(self, number: int) -> None:
        if number > self._max_frames:
            raise BadRequest(self._field, f"expected at most {self._max_frames} frames; cut the video")

    def _check_pixels(self, of_frame: int, num_frames: int, total: int = 0) -> None:
        if of_frame > MAX_PICTURE_NUM_PIXELS:
            raise BadRequest(self._field, f"expected at most {MAX_PICTURE_NUM_PIXELS} pixels a frame, got {of_frame}")
        total = max(total, of_frame * num_frames)
        if total > self._budget.max_num_pixels:
            most = f"{self._budget.max_num_pixels} pixels in all frames"
            raise BadRequest(self._field, f"expected at most {most}, got {total}; cut the video or shrink it")
