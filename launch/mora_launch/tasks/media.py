"""Pictures and videos as bytes and files. PyAV and Pillow; formats are told by content and only known ones are opened.

A clip is uint8 (frames, height, width, 3), RGB. FFmpeg is given the bytes and the format, never a name or address, so
that nothing a file says makes it open another one.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from mora_launch.tasks.errors import BadRequest

Clip = npt.NDArray[np.uint8]
FORMATS = ("mp4", "webm", "gif", "png")
CODECS = {"mp4": ("libx264", "mpeg4"), "webm": ("libvpx-vp9", "libvpx")}
MAX_NUM_PIXELS = 64 << 20  # of one picture or frame
_MAX_CLIP_NBYTES = 4 << 30
_PICTURES = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class Video:
    """Decoded frames and their rate."""

    frames: Clip
    fps: float


def read_picture(content: bytes, field: str) -> Clip:
    """uint8 (H, W, 3) of a PNG, JPEG or WebP.

    Raises:
        BadRequest: naming `field`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_PICTURES) as image:
            if image.width * image.height > MAX_NUM_PIXELS:
                raise BadRequest(field, f"expected at most {MAX_NUM_PIXELS} pixels, got {image.width}x{image.height}")
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except UnidentifiedImageError:
        raise BadRequest(field, "expected a PNG, JPEG or WebP picture, got something else") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRequest(field, f"expected a PNG, JPEG or WebP picture that can be decoded ({error})") from None


def video_format(content: bytes) -> str | None:
    """FFmpeg's name of the container that these bytes are; None for anything else."""
    if content[4:8] == b"ftyp":
        return "mp4"
    if content[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "gif" if content[:6] in (b"GIF87a", b"GIF89a") else None


def read_video(content: bytes, field: str, *, max_frames: int, size: tuple[int, int] | None = None) -> Video:
    """Frames of an mp4, webm or gif.

    Args:
        size: (height, width) that every frame is brought to as by `fitted`; by default the first frame's.

    Raises:
        BadRequest: naming `field`: another kind of file, a broken one, a single frame, too many.
    """
    container_format = video_format(content)
    if container_format is None:
        raise BadRequest(field, "expected an mp4, webm or gif video")
    try:
        frames, fps = _decode(content, container_format, field, max_frames, size)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise BadRequest(field, f"cannot be decoded as a video ({error})") from None
    if len(frames) < 2:
        raise BadRequest(field, f"expected a video of at least 2 frames, got {len(frames)}; send a picture as an image")
    return Video(np.stack(frames), fps)


def _decode(
    content: bytes, container_format: str, field: str, max_frames: int, size: tuple[int, int] | None
) -> tuple[list[Clip], float]:
    frames: list[Clip] = []
    nbytes = 0
    with av.open(io.BytesIO(content), "r", format=container_format) as container:
        if not container.streams.video:
            raise BadRequest(field, "has no video stream")
        stream = container.streams.video[0]
        if stream.width * stream.height > MAX_NUM_PIXELS:
            raise BadRequest(field, f"expected at most {MAX_NUM_PIXELS} pixels a frame")
        fps = float(stream.average_rate or 8)
        for frame in container.decode(stream):
            if len(frames) >= max_frames:
                raise BadRequest(field, f"expected at most {max_frames} frames; cut the video")
            if frame.width * frame.height > MAX_NUM_PIXELS:  # they may grow on the way
                raise BadRequest(field, f"expected at most {MAX_NUM_PIXELS} pixels a frame")
            picture = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
            size = size or (frame.height, frame.width)
            frames.append(fitted(picture[None], *size)[0])
            nbytes += frames[-1].nbytes
            if nbytes > _MAX_CLIP_NBYTES:
                raise BadRequest(
                    field, f"expected at most {_MAX_CLIP_NBYTES} bytes decoded; cut the video or shrink it"
                )
    return frames, fps


def fitted(frames: Clip, height: int, width: int) -> Clip:
    """Frames scaled to cover height x width and cut around the centre; those of the right size as they are."""
    if frames.shape[1:3] == (height, width):
        return frames
    own_height, own_width = frames.shape[1:3]
    scale = max(height / own_height, width / own_width)
    crop_width, crop_height = width / scale, height / scale
    left, top = (own_width - crop_width) / 2, (own_height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    images = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=box) for frame in frames)
    return np.stack([np.asarray(image, dtype=np.uint8) for image in images])


def at_rate(video: Video, fps: float) -> Clip:
    """The video's frames at another rate: for each new time the latest frame."""
    if abs(video.fps - fps) < 1e-6:
        return video.frames
    num_frames = max(1, round(len(video.frames) * fps / video.fps))
    indices = np.minimum((np.arange(num_frames) * video.fps / fps + 1e-9).astype(int), len(video.frames) - 1)
    frames: Clip = video.frames[indices]
    return frames


def encode(clip: Clip, fps: float, kind: str, metadata: dict[str, Any], codec: str | None = None) -> bytes:
    """A file of format `kind` with the metadata inside, as JSON in its comment; png holds the first frame.

    Raises:
        BadRequest: an unknown format, or a codec that does not go with it.
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
    """The codec of a format: as asked for, or its usual one; None where a format has no choice. Raises: BadRequest."""
    possible = CODECS.get(kind, ())
    if codec is not None and codec not in possible:
        raise BadRequest("codec", f"expected one of {', '.join(possible) or 'none'} with {kind}, got {codec[:20]}")
    return codec or next(iter(possible), None)


def png(picture: Clip, comment: str = "") -> bytes:
    """A PNG with its comment."""
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
    exact = {"fflags": "+bitexact"}  # no random identifiers: the same clip is the same file
    with av.open(sink, "w", format=kind, container_options=exact) as container:
        container.metadata["comment"] = comment
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # x264's macroblock tree decides otherwise now and then on a busy machine: the same clip would be another file
        x264 = {"crf": "16", "x264-params": "mbtree=0"}
        stream.options = x264 if codec == "libx264" else {"crf": "20", "b": "0"}
        stream.codec_context.thread_count = 1  # the same bytes on any number of cores
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return sink.getvalue()


def read_metadata(content: bytes) -> dict[str, Any]:
    """What `encode` wrote into a file."""
    if video_format(content) in (None, "gif"):
        with Image.open(io.BytesIO(content)) as image:
            comment = image.info.get("comment", "{}")
        return dict(json.loads(comment))
    with av.open(io.BytesIO(content), format=video_format(content)) as container:
        found = {name.lower(): value for name, value in container.metadata.items()}
    return dict(json.loads(found.get("comment", "{}")))


def format_of(path: Path) -> str:
    """Of an output file, by its ending. BadRequest for an unknown one."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise BadRequest("output", f"expected a name that ends in one of {', '.join(FORMATS)}, got {path.name}")
    return kind
