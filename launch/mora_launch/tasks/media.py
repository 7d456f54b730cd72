"""Pictures and videos of tasks: their encoding, and the readers of `mora_launch.decoding` under one name."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from mora_data.reading.file_kind import kind_of
from mora_data.reading.fitting import Clip
from mora_data.video_writer import write_video
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mora_launch.decoding.picture import read_picture
from mora_launch.decoding.video import read_video
from mora_launch.tasks.errors import BadRequest

__all__ = [
    "CODECS", "FORMATS", "MAX_GIF_FPS", "check_encodable", "chosen_codec", "encode", "format_of", "png",
    "read_metadata", "read_picture", "read_video",
]  # fmt: skip

FORMATS = ("mp4", "webm", "gif", "png")
MAX_GIF_FPS = 50
CODECS = {"mp4": ("libx264", "mpeg4"), "webm": ("libvpx-vp9", "libvpx")}


def encode(clip: Clip, fps: float, kind: str, metadata: dict[str, Any], codec: str | None = None) -> bytes:
    """Encode a clip as a file of format `kind`, with the metadata as JSON in its comment; png gets the first frame.

    Raises:
        BadRequest: an unknown format, or a codec that does not match it.
    """
    text = comment_of(metadata)
    chosen = chosen_codec(kind, codec)
    if kind == "png":
        return png(clip[0], text)
    if kind == "gif":
        return _gif(clip, fps, text)
    if chosen is None:
        raise BadRequest("format", f"expected one of {', '.join(FORMATS)}, got {kind}")
    return _encode_video(clip, fps, kind, chosen, text)


def comment_of(metadata: dict[str, Any]) -> str:
    """Return the comment of a file with this metadata, which `read_metadata` reads."""
    return json.dumps(metadata, sort_keys=True)


def chosen_codec(kind: str, codec: str | None) -> str | None:
    """Return the given codec or the format's default; None if the format has no choice. Raises: BadRequest."""
    possible = CODECS.get(kind, ())
    if codec is not None and codec not in possible:
        raise BadRequest("codec", f"expected one of {', '.join(possible) or 'none'} with {kind}, got {codec[:20]}")
    return codec or next(iter(possible), None)


def check_encodable(kind: str, size: tuple[int, int] | None, fps: float | None) -> None:
    """Check that a format can have a (height, width) and a rate. Raises: BadRequest: names the field and its limit."""
    if kind in CODECS and size is not None and (size[0] % 2 or size[1] % 2):
        nearest = f"{size[1] + size[1] % 2}x{size[0] + size[0] % 2}"
        text = f"expected an even width and height with {kind}, got {size[1]}x{size[0]}; the nearest is {nearest}"
        raise BadRequest("size", text)
    if kind == "gif" and fps is not None and fps > MAX_GIF_FPS:
        raise BadRequest("fps", f"expected at most {MAX_GIF_FPS} with gif, which no player shows faster, got {fps:g}")


def png(picture: Clip, comment: str = "") -> bytes:
    """Encode a picture as PNG, with a comment."""
    info = PngInfo()
    if comment:
        info.add_itxt("comment", comment)
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG", pnginfo=info, compress_level=1)
    return sink.getvalue()


def _gif(clip: Clip, fps: float, comment: str) -> bytes:
    """A gif counts in hundredths of a second; frames differ by one so that the whole lasts as long as it should."""
    check_encodable("gif", None, fps)
    first, *rest = [Image.fromarray(frame) for frame in clip]
    starts = np.round(np.arange(len(clip) + 1) * 100 / fps).astype(int)
    durations_ms = [int(each) * 10 for each in np.diff(starts)]
    sink = io.BytesIO()
    first.save(sink, "GIF", save_all=True, append_images=rest, duration=durations_ms, loop=0, comment=comment.encode())
    return sink.getvalue()


def _encode_video(clip: Clip, fps: float, kind: str, codec: str, comment: str) -> bytes:
    check_encodable(kind, (clip.shape[1], clip.shape[2]), fps)
    with tempfile.TemporaryDirectory(prefix="mora-encode-") as folder:  # the index of an mp4 is moved within a file
        path = Path(folder) / f"video.{kind}"
        write_video(path, clip, fps, codec=codec, comment=comment)
        return path.read_bytes()


def read_metadata(content: bytes) -> dict[str, Any]:
    """Return the metadata that `encode` wrote into a file."""
    kind = kind_of(content)
    if kind.media == "picture" or kind.decoder == "gif":
        with Image.open(io.BytesIO(content)) as image:
            comment = image.info.get("comment", "{}")
        return dict(json.loads(comment))
    with av.open(io.BytesIO(content), format=kind.decoder) as container:
        found = {name.lower(): value for name, value in container.metadata.items()}
    return dict(json.loads(found.get("comment", "{}")))


def format_of(path: Path) -> str:
    """Return the format of an output file by its suffix. Raises: BadRequest: an unknown one."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise BadRequest("output", f"expected a file name that ends in one of {', '.join(FORMATS)}, got {path.name}")
    return kind
