"""Makes whole frames from interlaced ones, with FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.video.stream import VideoStream


class Deinterlacer:
    """A filter of frames; those that are marked as whole pass unchanged, one frame later."""

    def __init__(self, stream: VideoStream) -> None:
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(template=stream)
        deinterlacing = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(deinterlacing)
        deinterlacing.link_to(sink)
        self._graph.configure()

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Give one frame, or None at the end; yield those that are done."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
