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


def write_video(path: Path, clip: Clip, fps: float, *, codec: str = "libx264", comment: str = "") -> None:
    """Write a clip as mp4 or webm, by the suffix, in BT.709; the same clip gives the same file on every machine.

    An mp4 has its index in front, so that a browser can play it while it loads.

    Args:
        clip: uint8 (frames, height, width, 3); height and width are even.
        codec: FFmpeg's name of an encoder.
        comment: metadata of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    exact = {"fflags": "+bitexact"}  # without random identifiers
    if path.suffix == ".mp4":
        exact["movflags"] = "+faststart"
    with av.open(str(path), "w", format=_FORMATS[path.suffix], container_options=exact) as container:
        if comment:
            container.metadata["comment"] = comment
        stream = _stream(container, codec, clip, fps, "yuv420p")
        stream.options = _OPTIONS.get(codec, _OTHER_OPTIONS)
        _tag(stream, ColorTrc.BT709)
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        for pixels in clip:
            container.mux(stream.encode(_in_bt709(pixels)))
        container.mux(stream.encode(None))


def write_lossless(path: Path, clip: Clip, fps: float) -> None:
    """Write a clip as FFV1 in Matroska: decodes to the same bits; the same clip gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
        stream = _stream(container, "ffv1", clip, fps, "bgr0")
        _tag(stream, ColorTrc.IEC61966_2_1)
        for number, pixels in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="bgr0")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _stream(container: Any, codec: str, clip: Clip, fps: float, pixel_format: str) -> Any:
    stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(_MAX_DENOMINATOR))
    stream.height, stream.width = clip.shape[1:3]
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
