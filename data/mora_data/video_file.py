"""A video of a data set, opened for decoding. PyAV only, no torch.

FFmpeg also accepts playlists, text files that make it open other files and addresses. So the file is opened here, by
descriptor and only if it is a regular file, and FFmpeg may use only the formats and codecs of clips.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from mora_runtime.errors import DatasetError
from mora_runtime.files.foreign_file import open_foreign

FORMATS = ("mov", "mp4", "matroska", "webm", "avi", "gif", "mpegts", "mpeg", "flv", "ogg")
CODECS = (
    "h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video", "mpeg1video",
    "mjpeg", "ffv1", "gif", "prores", "theora",
)  # fmt: skip
MAX_NUM_PIXELS = 64 << 20  # of a frame: 8K is 33 million
_MAX_PATH_LENGTH = 4096


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video: a context manager that gives the container and its first video stream.

    Raises:
        DatasetError: not a regular file, or not a video in an allowed format; also if decoding fails inside the block.
    """
    try:
        with _opened(path) as container:
            if not container.streams.video:
                raise DatasetError(f"{path}: has no video stream")
            stream = container.streams.video[0]
            _check(path, stream)
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be decoded as a video: {error}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    options = {
        "format_whitelist": ",".join(FORMATS), "codec_whitelist": ",".join(CODECS), "protocol_whitelist": "file",
    }  # fmt: skip
    if len(str(path)) > _MAX_PATH_LENGTH:
        raise OSError(f"expected a path of at most {_MAX_PATH_LENGTH} characters")
    with open(open_foreign(path), "rb") as file, av.open(file, "r", options=options) as container:
        yield container


def _check(path: Path, stream: VideoStream) -> None:
    context = stream.codec_context
    names = {context.name, context.codec.name}
    if not names <= set(CODECS):  # FFmpeg applies the list only to streams that it probes when it opens the file
        raise DatasetError(f"{path}: expected one of the codecs {', '.join(CODECS)}, got {', '.join(sorted(names))}")
    if context.width * context.height > MAX_NUM_PIXELS:
        raise DatasetError(
            f"{path}: expected frames of at most {MAX_NUM_PIXELS} pixels, got {context.width}x{context.height}"
        )
