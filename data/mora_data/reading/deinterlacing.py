"""Makes whole frames from interlaced ones, with FFmpeg's bwdif."""

from __future__ import annotations

import contextlib

import av
from av.video.stream import VideoStream


class Deinterlacer:
    """A filter of frames; those that are marked as whole pass unchanged, one frame later."""

    def __init__(self, stream: VideoStream) -> None:
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(template=stream)
        deinterlacing = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(deinterlacing)
        deinterlacing.link_to(sink)
        self._graph.configure()

    def push(self, frame: av.VideoFrame | None) -> list[av.VideoFrame]:
        """Give one frame, or None at the end; return those that are done. Raises: FFmpegError: it does not fit."""
        self._graph.vpush(frame)
        done = []
        with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                done.append(self._graph.vpull())
        return done
