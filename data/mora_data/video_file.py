"""A video of a data set, opened for decoding. PyAV only, no torch.

What FFmpeg takes for a video can be a play list: a text that has it open other files and addresses. So the file is
opened here, by descriptor and only where it is one, and FFmpeg may take it for nothing but what clips come in.
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
    """The container and its first video stream.

    Raises:
        DatasetError: it is no regular file, or no video of a kind that is read here; also where decoding fails inside
            of the block.
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
    if not names <= set(CODECS):  # PyAV asks the list only for what it looks into when it opens
        raise DatasetError(f"{path}: expected one of the codecs {', '.join(CODECS)}, got {', '.join(sorted(names))}")
    if context.width * context.height > MAX_NUM_PIXELS:
        raise DatasetError(
            f"{path}: expected frames of at most {MAX_NUM_PIXELS} pixels, got {context.width}x{context.height}"
        )
