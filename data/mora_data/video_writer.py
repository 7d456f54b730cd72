"""Writes clips as video files that any player shows in our colours: they carry their colour tags."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from mora_data.reading.fitting import Clip

_MAX_DENOMINATOR = 1000  # of a frame rate
_FORMATS = {".mp4": "mp4", ".webm": "webm"}
# x264's macroblock tree sometimes decides differently on a busy machine: the same clip would give other bytes
_OPTIONS = {"libx264": {"crf": "16", "x264-params": "mbtree=0"}}
_OTHER_OPTIONS = {"crf": "20", "b": "0"}
_LIVE_FLAGS = "+empty_moov+default_base_moof+frag_every_frame"
_LIVE_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}


class VideoWriter:
    """A context manager that writes an mp4 or webm, by the suffix, in BT.709. Frames can be added one piece at a time.

    The same frames give the same file on every machine, in however many parts they are written.

    Args:
        size: (height, width), even.
        codec: FFmpeg's name of an encoder.
        comment: metadata of the file.
        is_live: write an mp4 in fragments, so that each frame can be played once it is written: for viewers who do not
            wait for the end. Its quality is lower. Otherwise an mp4 has its index in front, so that a browser can play
            it while it loads.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], fps: float, *, codec: str = "libx264", comment: str = "",
        is_live: bool = False,
    ) -> None:  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"fflags": "+bitexact"}  # without random identifiers
        if is_live:
            options |= {"fflags": "+bitexact+flush_packets", "movflags": _LIVE_FLAGS}
        elif path.suffix == ".mp4":
            options["movflags"] = "+faststart"
        self._container: Any = av.open(str(path), "w", format=_FORMATS[path.suffix], container_options=options)
        if comment:
            self._container.metadata["comment"] = comment
        self._stream = _stream(self._container, codec, size, fps, "yuv420p")
        self._stream.options = _LIVE_OPTIONS if is_live else _OPTIONS.get(codec, _OTHER_OPTIONS)
        _tag(self._stream, ColorTrc.BT709)
        self._stream.codec_context.colorspace = Colorspace.ITU709
        self._stream.codec_context.color_range = ColorRange.MPEG

    def write(self, clip: Clip) -> None:
        """Append frames, uint8 (frames, height, width, 3)."""
        for pixels in clip:
            self._container.mux(self._stream.encode(_in_bt709(pixels)))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def write_video(path: Path, clip: Clip, fps: float, *, codec: str = "libx264", comment: str = "") -> None:
    """Write a clip, uint8 (frames, height, width, 3), with `VideoWriter`."""
    with VideoWriter(path, clip.shape[1:3], fps, codec=codec, comment=comment) as writer:
        writer.write(clip)


def write_lossless(path: Path, clip: Clip, fps: float) -> None:
    """Write a clip as FFV1 in Matroska: decodes to the same bits; the same clip gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
        stream = _stream(container, "ffv1", clip.shape[1:3], fps, "bgr0")
        _tag(stream, ColorTrc.IEC61966_2_1)
        for number, pixels in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="bgr0")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _stream(container: Any, codec: str, size: tuple[int, int], fps: float, pixel_format: str) -> Any:
    stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(_MAX_DENOMINATOR))
    stream.height, stream.width = size
    stream.pix_fmt = pixel_format
    stream.codec_context.thread_count = 1  # the same bytes on any number of cores
    return stream


def _tag(stream: Any, transfer: ColorTrc) -> None:
    stream.codec_context.color_primaries = ColorPrimaries.BT709
    stream.codec_context.color_trc = transfer


def _in_bt709(pixels: Clip) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    converted: av.VideoFrame = frame.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
    )
    return converted
