"""Encoding of pictures and videos with PyAV and Pillow. Decoding is in `mora_launch.decoding`."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mora_launch.decoding.clip import Clip, Video, at_rate, fitted
from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.video import read_video
from mora_launch.decoding.video_header import video_format
from mora_launch.tasks.errors import BadRequest

__all__ = [
    "CODECS", "FORMATS", "Clip", "Video", "at_rate", "chosen_codec", "encode", "fitted", "format_of", "png",
    "read_metadata", "read_picture", "read_video", "video_format",
]  # fmt: skip

FORMATS = ("mp4", "webm", "gif", "png")
CODECS = {"mp4": ("libx264", "mpeg4"), "webm": ("libvpx-vp9", "libvpx")}


def encode(clip: Clip, fps: float, kind: str, metadata: dict[str, Any], codec: str | None = None) -> bytes:
    """Encode a clip as a file of format `kind`, with the metadata as JSON in its comment; png gets the first frame.

    Raises:
        BadRequest: an unknown format, or a codec that does not match it.
    """
    text = json.dumps(metadata, sort_keys=True)
    chosen = chosen_codec(kind, codec)
    if kind == "png":
        return png(clip[0], text)
    if kind == "gif":
        return _gif(clip, fps, text)
    if chosen is None:
        raise BadRequest("format", f"expected one of {', '.join(FORMATS)}, got {kind}")
    return _encode_video(clip, fps, kind, chosen, text)


def chosen_codec(kind: str, codec: str | None) -> str | None:
    """Return the given codec or the format's default; None if the format has no choice. Raises: BadRequest."""
    possible = CODECS.get(kind, ())
    if codec is not None and codec not in possible:
        raise BadRequest("codec", f"expected one of {', '.join(possible) or 'none'} with {kind}, got {codec[:20]}")
    return codec or next(iter(possible), None)


def png(picture: Clip, comment: str = "") -> bytes:
    """Encode a picture as PNG, with a comment."""
    info = PngInfo()
    if comment:
        info.add_itxt("comment", comment)
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG", pnginfo=info, compress_level=1)
    return sink.getvalue()


def _gif(clip: Clip, fps: float, comment: str) -> bytes:
    first, *rest = [Image.fromarray(frame) for frame in clip]
    sink = io.BytesIO()
    first.save(
        sink, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, comment=comment.encode()
    )
    return sink.getvalue()


def _encode_video(clip: Clip, fps: float, kind: str, codec: str, comment: str) -> bytes:
    sink = io.BytesIO()
    exact = {"fflags": "+bitexact"}  # without random identifiers, so the same clip gives the same file
    with av.open(sink, "w", format=kind, container_options=exact) as container:
        container.metadata["comment"] = comment
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # x264's macroblock tree sometimes decides differently on a busy machine: the same clip would give other bytes
        x264 = {"crf": "16", "x264-params": "mbtree=0"}
        stream.options = x264 if codec == "libx264" else {"crf": "20", "b": "0"}
        stream.codec_context.thread_count = 1  # the same bytes on any number of cores
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return sink.getvalue()


def read_metadata(content: bytes) -> dict[str, Any]:
    """Return the metadata that `encode` wrote into a file."""
    if video_format(content) in (None, "gif"):
        with Image.open(io.BytesIO(content)) as image:
            comment = image.info.get("comment", "{}")
        return dict(json.loads(comment))
    with av.open(io.BytesIO(content), format=video_format(content)) as container:
        found = {name.lower(): value for name, value in container.metadata.items()}
    return dict(json.loads(found.get("comment", "{}")))


def format_of(path: Path) -> str:
    """Return the format of an output file by its suffix. Raises: BadRequest: an unknown one."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise BadRequest("output", f"expected a file name that ends in one of {', '.join(FORMATS)}, got {path.name}")
    return kind
